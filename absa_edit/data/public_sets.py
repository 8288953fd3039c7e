"""The public data sets that are known by name, and the domains that have a bundled sample."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from absa_edit.errors import DataError
from absa_edit.records import Dataset
from absa_edit.tasks.absc import ABSC

SAMPLE_DOMAINS = ("laptop", "restaurant", "device", "service")
SUFFIX = "-sample"

ANYBODYS = ("train.xml", "test.xml")
"""Names of files that say nothing of the set."""

Counts = tuple[int, int, int]
"""Positive, negative, neutral."""


@dataclass(frozen=True, slots=True)
class PublicSet:
    """Where a public set lies in a data folder, and what it is about."""

    name: str
    domain: str
    train: tuple[str, ...]
    """Paths of the training file under a data folder, the usual one first."""
    test: tuple[str, ...]
    licence: str
    hub: str | None = None
    """Dataset id on the Hugging Face hub."""
    web: str | None = None
    """Address that the usual file names are added to, where the authors publish the files themselves."""
    counts: Mapping[str, Counts] = field(default_factory=dict)
    """Positive, negative and neutral aspects of each split, without `conflict`; empty where copies differ."""
    sha256: Mapping[str, str] = field(default_factory=dict)
    """Hashes of the copies that this project was tested with, by file name."""

    def candidates(self, split: str) -> tuple[str, ...]:
        """The paths to try for `split`, the bare file name in the folder itself last."""
        paths = self.train if split == "train" else self.test
        return (*paths, paths[0].rsplit("/", 1)[-1])

    def check(self, split: Dataset, origin: object) -> None:
        """Raise `DataError` when a split that was read from `origin` is not counted as the published one."""
        positive, negative, neutral = split.counts().values()
        counts = positive, negative, neutral
        expected = self.counts.get(split.split, counts)
        if counts != expected:
            raise DataError(
                f"{origin}: {_words(counts)}; {self.name} has {_words(expected)} in its {split.split} split. "
                "It is another version or another set: put the published file there, or give yours a name of its own "
                "(data=files data.name=mine data.train=... data.test=...)."
            )

    def path_in(self, folder: Path, split: str) -> Path | None:
        """Where `split` lies in a data folder; a file that may be any set's is this one's only if its path says so."""
        paths = (folder / path for path in self.candidates(split) if path not in ANYBODYS)
        return next((path for path in paths if path.is_file()), None)


def _words(counts: Counts) -> str:
    return f"{sum(counts)} aspects (" + ", ".join(f"{n} {p}" for n, p in zip(counts, ABSC.labels, strict=True)) + ")"


def fetched(name: str, split: str) -> str:
    """Where a split that came from the hub lies in a data folder."""
    return f"hub/{name}_{split}.jsonl"


def _semeval14(
    name: str, domain: str, stem: str, hub: str, counts: Mapping[str, Counts], sha256: tuple[str, str]
) -> PublicSet:
    train, test = f"{stem}_Train_v2.xml", f"{stem}_Test_Gold.xml"
    return PublicSet(
        name,
        domain,
        (f"semeval14/{train}", fetched(name, "train")),
        (f"semeval14/{test}", fetched(name, "test")),
        "SemEval-2014 task 4: terms of META-SHARE (registration); not to be passed on",
        hub=hub,
        counts=counts,
        sha256=dict(zip((train, test), sha256, strict=True)),
    )


def _me_absc(stem: str, domain: str) -> PublicSet:
    train, test = f"me_absc/{stem}_train.json", f"me_absc/{stem}_test.json"
    return PublicSet(f"me_absc_{stem}", domain, (train,), (test,), "MIT for the files; the reviews are their authors'")


PUBLIC = {
    public.name: public
    for public in (
        _semeval14(
            "laptop14",
            "laptop",
            "Laptops",
            "tomaarsen/setfit-absa-semeval-laptops",
            {"train": (987, 866, 460), "test": (341, 128, 169)},
            (
                "93314dee4be6bc3d9054213f3163dde1956a4cf138bfdce543c67420ef372784",
                "f2875c881994d52e7df1f51e96298a8e19143a99d508df33c7a3c775bee83cd0",
            ),
        ),
        _semeval14(
            "restaurant14",
            "restaurant",
            "Restaurants",
            "tomaarsen/setfit-absa-semeval-restaurants",
            {"train": (2164, 805, 633), "test": (728, 196, 196)},
            (
                "1b49bbd43f3e459276cef44b19e1849ffa27c60b5d64a20c9c5da1a1e694d31b",
                "f21509cfa37e16534cd5b2da043be487355b64ef48fe8d6aaacaeca6b49cc0fb",
            ),
        ),
        PublicSet(  # counts: Jiang et al. 2019 (MAMS), table 2
            "mams",
            "restaurant",
            ("mams/train.xml", "MAMS-ATSA/raw/train.xml", "data/MAMS-ATSA/raw/train.xml"),
            ("mams/test.xml", "MAMS-ATSA/raw/test.xml", "data/MAMS-ATSA/raw/test.xml"),
            "none stated by the authors; not to be passed on",
            web="https://raw.githubusercontent.com/siat-nlp/MAMS-for-ABSA/master/data/MAMS-ATSA/raw/",
            counts={"train": (3380, 2764, 5042), "test": (400, 329, 607)},
        ),
        _me_absc("device", "device"),
        _me_absc("laptop", "laptop"),
        _me_absc("rest", "restaurant"),
        _me_absc("service", "service"),
    )
}
"""Public sets by name."""


def sample_domain(name: str) -> str | None:
    """The domain of the bundled sample that `name` asks for; None for any other name."""
    domain = name.removesuffix(SUFFIX)
    return domain if name.endswith(SUFFIX) and domain in SAMPLE_DOMAINS else None


def public_set(name: str, key: str) -> PublicSet:
    """The public set called `name`; the setting `key` goes into the `DataError` when there is none."""
    if name in PUBLIC:
        return PUBLIC[name]
    if sample_domain(name):
        raise DataError(f"{key}={name}: no public set, but the sample that comes with the project: nothing to fetch")
    known = [*PUBLIC, *(domain + SUFFIX for domain in SAMPLE_DOMAINS)]
    near = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise DataError(
        f"{key}={name}: no such data set.{hint} "
        f"Known are {', '.join(known)}; for your own files give data.train and data.test."
    )
