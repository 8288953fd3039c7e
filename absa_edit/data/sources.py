"""Where the data of a run comes from: own files, a data folder, the hub, or the bundled sample."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from absa_edit.data.general_sentiment import general_sets
from absa_edit.data.hub import Hub
from absa_edit.data.public_sets import PUBLIC, SUFFIX, PublicSet, public_set, sample_domain
from absa_edit.data.readers.base import read
from absa_edit.data.settings import DataSettings
from absa_edit.data.splits import limit, split_dev, without_leaks
from absa_edit.errors import DataError
from absa_edit.records import Dataset
from absa_edit.tasks.absc import ABSC
from absa_edit.tasks.base import Task

SAMPLES = Path(__file__).resolve().parents[1] / "assets" / "sample"
"""Folder of the bundled samples, `<domain>_train.xml` and `<domain>_test.xml`."""


@dataclass(frozen=True, slots=True)
class Splits:
    """The data of a run, and what a person must be told of it."""

    train: Dataset
    dev: Dataset
    tests: tuple[Dataset, ...]
    """The own test split first; each set once."""
    notices: tuple[str, ...]
    general: tuple[Dataset, ...] = ()
    """Sentences of no domain: what a model still knows of sentiment in general."""


@dataclass(frozen=True, slots=True)
class _Places:
    """Where public sets are looked for, in this order: folders, then the hub."""

    folders: tuple[Path, ...]
    hub: Hub | None

    def find(self, public: PublicSet, *splits: str) -> tuple[Dataset, ...] | None:
        """The splits of `public`, all from the first place that has all of them; None if none has.

        Raises `DataError` for a file that only bears the set's name.
        """
        for folder in self.folders:
            paths = [public.path_in(folder, split) for split in splits]
            if None not in paths:
                datasets = []
                for path, split in zip(paths, splits, strict=True):
                    if path:
                        datasets.append(read(path, name=public.name, split=split, domain=public.domain, task=ABSC))
                        public.check(datasets[-1], path)
                return tuple(datasets)
        if self.hub and public.hub:
            return self.hub.read(public, *splits)
        return None

    def looked(self, public: PublicSet, *splits: str) -> str:
        """What `find` tried, for people."""
        files = " and ".join(public.candidates(split)[0] for split in splits)
        text = f"looked for {files} in {', '.join(map(str, self.folders))}"
        if self.hub and public.hub:
            text += f"; hub {public.hub}: {self.hub.failures[public.hub]}"
        return text


def load_splits(settings: DataSettings, task: Task = ABSC, *, root: Path, environ: Mapping[str, str]) -> Splits:
    """The data that `settings` ask for; `root` is the project's folder, whose `data/` is looked in.

    `Splits.train.name` is the name that everything written must use: after a fall-back to the bundled
    sample it is `<domain>-sample`. Limits are drawn first, then the development sentences from what is
    left; leaks are checked against the whole training file. Raises `DataError`.
    """
    main, everywhere = _places(settings, root, environ)
    (full_train, test), notices = _main(settings, task, main)
    sampled = bool(notices)
    others, left_out = _others(settings, full_train.name, sampled, everywhere)

    train = limit(full_train, settings.limit_train, _rng(settings, "train"))
    train, dev = split_dev(train, settings.dev_share, _rng(settings, "dev"))
    tests = tuple(
        limit(
            without_leaks(each, full_train, settings.leaks),
            settings.limit_test,
            _rng(settings, f"test {each.name}"),
        )
        for each in (test, *others)
    )
    return Splits(train, dev, tests, notices + left_out, general_sets(everywhere.folders))


def load_pair(
    settings: DataSettings, task: Task = ABSC, *, root: Path, environ: Mapping[str, str]
) -> tuple[Dataset, Dataset]:
    """The training and the test file as they are: nothing split, limited or dropped. Raises `DataError`."""
    return _main(replace(settings, strict=True), task, _places(settings, root, environ)[0])[0]


def _places(settings: DataSettings, root: Path, environ: Mapping[str, str]) -> tuple[_Places, _Places]:
    """Where the main set is looked for, and where further test sets are."""
    hub = Hub(environ)
    named = environ.get("ABSA_EDIT_DATA")
    usual = (*([Path(named).expanduser()] if named else []), root / "data")
    own_folders = (Path(settings.path).expanduser(),) if settings.path else ()
    return _Places(own_folders, None) if own_folders else _Places(usual, hub), _Places((*own_folders, *usual), hub)


def _main(settings: DataSettings, task: Task, places: _Places) -> tuple[tuple[Dataset, Dataset], tuple[str, ...]]:
    """Training and test set, and the notice of a fall-back to the bundled sample."""
    if settings.train and settings.test:
        if sample_domain(settings.name) or settings.name in PUBLIC:
            whose = "the bundled sample's" if sample_domain(settings.name) else "a public set's"
            raise DataError(
                f"data.name={settings.name} is {whose} name; give your own files another one: data=files data.name=mine"
            )
        return _own_files(settings, task, Path(settings.train), Path(settings.test)), ()
    if not task.asks_aspect or task.labels != ABSC.labels:
        raise DataError(
            f"data.name={settings.name}: sets known by name are of aspects, positive, negative or neutral, "
            f"and the task asks for {', '.join(task.labels)}; give files: data=files data.name=mine data.train=... "
            "data.test=..."
        )
    domain = sample_domain(settings.name)
    if domain:
        return (_sample(domain, "train"), _sample(domain, "test")), ()
    public = public_set(settings.name, "data.name")
    datasets = places.find(public, "train", "test")
    if datasets:
        train, test = datasets
        return (train, test), ()
    looked = places.looked(public, "train", "test")
    if settings.path or settings.strict or not _has_sample(public.domain):
        why = "data.path" if settings.path else "data.strict=true" if settings.strict else "no bundled sample"
        raise DataError(f"data.name={public.name} was not found ({why}): {looked}. {_how_to_get(public)}")
    sample = _sample(public.domain, "train"), _sample(public.domain, "test")
    return sample, (_fallback_notice(public, looked),)


def _others(settings: DataSettings, main: str, sampled: bool, places: _Places) -> tuple[list[Dataset], tuple[str, ...]]:
    """The sets of `data.tests` that can be had, and a notice for each that cannot.

    With `sampled` (the main set fell back to the sample) public sets are samples too: a score on a
    public set says nothing beside a model trained on the sample.
    """
    test_sets: dict[str, Dataset] = {}
    notices: list[str] = []
    for name in settings.tests:
        domain = sample_domain(name)
        public = None if domain else public_set(name, "data.tests")
        if public and sampled:
            domain = public.domain
        final = f"{domain}{SUFFIX}" if domain else name
        if final == main or final in test_sets:
            continue
        if domain and (not sampled or _has_sample(domain)):
            test_sets[final] = _sample(domain, "test")
        elif domain:
            notices.append(f"Test set {name} is left out: there is no bundled sample for {domain}.")
        elif public and (sets := places.find(public, "test")):
            test_sets[final] = sets[0]
        elif public:
            notices.append(f"Test set {name} is left out: {places.looked(public, 'test')}. {_how_to_get(public)}")
    return list(test_sets.values()), tuple(notices)


def _own_files(settings: DataSettings, task: Task, train: Path, test: Path) -> tuple[Dataset, Dataset]:
    name, domain = settings.name, settings.domain or "product"
    return (
        read(train.expanduser(), name=name, split="train", domain=domain, task=task),
        read(test.expanduser(), name=name, split="test", domain=domain, task=task),
    )


def _sample(domain: str, split: str) -> Dataset:
    return read(SAMPLES / f"{domain}_{split}.xml", name=domain + SUFFIX, split=split, domain=domain, task=ABSC)


def _has_sample(domain: str) -> bool:
    return all((SAMPLES / f"{domain}_{split}.xml").is_file() for split in ("train", "test"))


def _rng(settings: DataSettings, use: str) -> np.random.Generator:
    """A separate stream for each use, so that a limit or a further test set moves no other draw."""
    return np.random.default_rng([settings.split_seed, zlib.crc32(use.encode())])


def _how_to_get(public: PublicSet) -> str:
    files = " and ".join(public.candidates(split)[-1] for split in ("train", "test"))
    what = "the official XML files" if files.endswith(".xml") else "the files"
    fetch = f"absa-edit data fetch {public.name}" if public.hub or public.web else ""
    return (
        f"To use {public.name}: {f'{fetch}, or ' if fetch else ''}put {what} {files} into a folder and set "
        "data.path=FOLDER or ABSA_EDIT_DATA=FOLDER."
    )


def _fallback_notice(public: PublicSet, looked: str) -> str:
    sample = public.domain + SUFFIX
    line = "!" * 78
    return "\n".join(
        (
            line,
            f"THIS RUN USES THE BUNDLED SAMPLE {sample}, NOT {public.name}.",
            f"{public.name} was not found: {looked}.",
            f"Everything that this run writes says {sample}; no score of it is a score on {public.name}.",
            _how_to_get(public),
            "To stop instead of using the sample: data.strict=true.",
            line,
        )
    )
