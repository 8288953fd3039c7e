"""What a benchmark file asks for, and the runs that it takes, cheapest first.

A run is one arm (an option of the group `method`) on one model, training set, number of training examples and seed.
Arms with a learning rate are tuned first: a short run at each rate of one grid, the same for all, on one training set
and seed; the rate with the lowest development log-loss is then used everywhere.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import TypeAdapter, ValidationError
from yaml import YAMLError

from absa_edit.compose import conf_folder
from absa_edit.errors import SettingsError
from absa_edit.methods.settings import METHODS
from absa_edit.storage import ENGINE, content_hash

ALL = "all"
"""The size that leaves no training example out."""


@dataclass(frozen=True)
class Arm:
    """An option of the group `method`, and what is special about it."""

    seeds: tuple[int, ...] = ()
    """Seeds of its own; none are the benchmark's."""
    models: tuple[str, ...] = ()
    """The models that it is run on; none are all."""
    rate_of: str | None = None
    """The arm whose learning rate it takes: a control's is that of what it controls."""
    rate: float | None = None
    """A learning rate that is not tuned."""


@dataclass(frozen=True)
class Tuning:
    """The runs that choose learning rates."""

    rates: tuple[float, ...]
    train: str
    size: int | str = ALL
    seed: int = 0


@dataclass(frozen=True)
class Benchmark:
    """A file such as `benchmarks/models.yaml`."""

    name: str
    models: tuple[str, ...]
    train: tuple[str, ...]
    """Training sets, options of the group `data`; each is scored on its own test set and on all of `tests`."""
    tests: tuple[str, ...]
    seeds: tuple[int, ...]
    arms: dict[str, Arm]
    sizes: tuple[int | str, ...] = (ALL,)
    """Numbers of training examples, `all` for every one. A smaller number is drawn anew for each seed."""
    tuning: Tuning | None = None
    """None leaves each method its default learning rate."""
    contrasts: dict[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)
    """Pairs of arms by the question that they answer, whose p-values are corrected together."""
    settings: tuple[str, ...] = ()
    """Overrides of every run, as on the command line of `absa-edit train`."""

    def __post_init__(self) -> None:
        for key in ("models", "train", "seeds", "arms", "sizes"):
            if not getattr(self, key):
                raise SettingsError(f"{self.name}: {key} is empty; name at least one")
        for size in (*self.sizes, *([self.tuning.size] if self.tuning else [])):
            if size != ALL and (isinstance(size, str) or size < 2):
                raise SettingsError(f"{self.name}: size {size!r}: expected a number of examples, or {ALL}")
        check_names("arm", self.arms, _options(), self.name)
        for arm, settings in self.arms.items():
            check_names(f"{arm}: rate_of", [settings.rate_of] if settings.rate_of else [], self.arms, self.name)
            check_names(f"{arm}: model", settings.models, self.models, self.name)
        for question, pairs in self.contrasts.items():
            check_names(f"contrast {question!r}: arm", [a for pair in pairs for a in pair], self.arms, self.name)
        if self.tuning and len(self.tuning.rates) < 2:
            raise SettingsError(f"{self.name}: tuning.rates={list(self.tuning.rates)}: expected several")


@dataclass(frozen=True)
class Job:
    """One run of `absa-edit train`."""

    model: str
    train: str
    size: int | str
    seed: int
    arm: str
    rate: float | None = None
    """Learning rate; None is the method's default."""
    tuning: bool = False
    """Whether it only helps to choose the rate; then it is not scored on whole test sets."""

    @property
    def name(self) -> str:
        """What is the same for all seeds and models."""
        rate = f"-lr{self.rate:g}" if self.tuning and self.rate is not None else ""
        return f"{self.train}-{self.size}-{self.arm.replace('/', '_')}{rate}"


def read_benchmark(path: Path) -> Benchmark:
    """The benchmark in a YAML file. Raises `SettingsError` naming the key that is wrong, and the nearest right one."""
    try:
        content = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except FileNotFoundError:
        raise SettingsError(f"{path}: no such file; give a benchmark, such as benchmarks/reviewlm.yaml") from None
    except (YAMLError, OmegaConfBaseException, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is no YAML file: {str(error).splitlines()[0]}") from None
    if not isinstance(content, dict):
        raise SettingsError(f"{path}: expected keys such as models, train and arms")
    if isinstance(arms := content.get("arms"), dict):
        content["arms"] = {name: arm or {} for name, arm in arms.items()}
    _refuse_unknown(content, Benchmark, path.name)
    for key, kind in (("arms", Arm), ("tuning", Tuning)):
        values = content.get(key) or {}
        for each in values.values() if key == "arms" and isinstance(values, dict) else [values]:
            _refuse_unknown(each, kind, f"{path.name}: {key}")
    try:
        return TypeAdapter(Benchmark).validate_python({"name": path.stem, **content})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise SettingsError(f"{path.name}: {where}: {first['msg']}") from None


def jobs(benchmark: Benchmark, rates: Mapping[tuple[str, str], float]) -> Iterator[Job]:
    """The runs that are scored, cheapest first: fewer examples before more, what shares a trace side by side.

    `rates` are those chosen, by model and arm.
    """
    for model in benchmark.models:
        for size in sorted(benchmark.sizes, key=lambda size: float("inf") if isinstance(size, str) else size):
            for seed in dict.fromkeys([*benchmark.seeds, *(s for arm in benchmark.arms.values() for s in arm.seeds)]):
                for train in benchmark.train:
                    for name, arm in benchmark.arms.items():
                        if seed in (arm.seeds or benchmark.seeds) and model in (arm.models or benchmark.models):
                            rate = arm.rate if arm.rate is not None else rates.get((model, arm.rate_of or name))
                            yield Job(model, train, size, seed, name, rate)


def tuning_jobs(benchmark: Benchmark, tunable: Sequence[str]) -> Iterator[Job]:
    """The runs that choose the rates of those of the arms `tunable` that have none."""
    tuning = benchmark.tuning
    if tuning is None:
        return
    for model in benchmark.models:
        for name, arm in benchmark.arms.items():
            chosen = arm.rate is not None or arm.rate_of is not None or model not in (arm.models or benchmark.models)
            if name in tunable and not chosen:
                for rate in tuning.rates:
                    yield Job(model, tuning.train, tuning.size, tuning.seed, name, rate, tuning=True)


def overrides(benchmark: Benchmark, job: Job, *, stages: Sequence[str], key: str) -> list[str]:
    """The command line of a run, without its place: `key` is the arm's name among the run's methods."""
    tests = () if job.tuning else benchmark.tests
    lines = [
        *benchmark.settings,
        f"model={job.model}",
        f"data={job.train}",
        "data.strict=true",
        f"data.tests=[{','.join(tests)}]",
        f"method=[{job.arm}]",
        f"seed={job.seed}",
        f"stages=[{','.join(stages)}]",
        "export.method=none",
        "track=none",
    ]
    if job.size != ALL:
        lines += [f"data.limit_train={job.size}", f"data.split_seed={job.seed}"]
    if job.tuning:
        lines.append("data.limit_test=20")  # rates are not chosen by it: as little as can be
    if job.rate is not None:
        lines.append(f"method.{key}.lr={job.rate:g}")
    return lines


def run_key(lines: Sequence[str]) -> str:
    """What a finished run is found again by: its command line, and the version of the arithmetic."""
    return content_hash(ENGINE, sorted(lines))


def _options() -> list[str]:
    """The options of the group `method`: files and plug-ins."""
    folder = conf_folder() / "method"
    files = (str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.yaml"))
    return sorted({*files, *METHODS})


def named(benchmark: Benchmark, part: str) -> list[str]:
    """What may be chosen of `models`, `arms`, `train`, `seeds` or `sizes`."""
    seeds = [seed for arm in benchmark.arms.values() for seed in arm.seeds] if part == "seeds" else []
    return list(dict.fromkeys(map(str, [*getattr(benchmark, part), *seeds])))


def check_names(what: str, given: Iterable[str], known: Collection[str], where: str) -> None:
    """Raise `SettingsError` for a name that is not known, with the nearest that is."""
    for name in given:
        if name not in known:
            near = get_close_matches(name, known, 1)
            hint = f"Did you mean {near[0]}?" if near else f"There are {', '.join(known)}."
            raise SettingsError(f"{where}: {what} {name!r} is none. {hint}")


def _refuse_unknown(given: Any, kind: type, where: str) -> None:
    names = [f.name for f in fields(kind)]
    check_names("key", given if isinstance(given, dict) else {}, names, where)
