"""Finished runs gathered by what they have in common: those that differ only by the seed are one group."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from absa_edit.compose import kept_settings
from absa_edit.errors import DataError, RecordError, SettingsError
from absa_edit.evaluation.across_seeds import SeedComparison, SeedScore, compare_seeds, pool, seed_score
from absa_edit.model.settings import Dtype
from absa_edit.report.conclusions import sample_warning
from absa_edit.report.lookup import focus, methods_in_order, own_test, questions, tests_in_order
from absa_edit.results import SCHEMA, Pooled, Prediction, RunRecord
from absa_edit.settings import NO_RESULT
from absa_edit.storage import content_hash, load, load_predictions
from absa_edit.tracing.settings import Engine

QUIET = ("seed", "name", "output", "stages", "track", "export", *NO_RESULT)
"""Settings that change no result, or have their own place in the table."""

Rows = dict[str, dict[str, dict[int, tuple[Prediction, ...]]]]
"""Predictions by method, test set and seed."""


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """A finished run and everything but the seed that its results depend on."""

    folder: Path
    record: RunRecord
    facts: dict[str, str]

    def key(self) -> tuple[tuple[str, str], ...]:
        return tuple(sorted(self.facts.items()))


@dataclass(frozen=True, slots=True)
class Line:
    """One method on one test set, over the seeds that have it."""

    test: str
    is_own_test: bool
    method: str
    score: SeedScore
    trainable: tuple[int, ...]
    fit_seconds: float | None
    """Mean over seeds; None where nothing was trained."""


@dataclass(frozen=True, slots=True)
class Group:
    """The runs of one experiment and model that differ only by the seed."""

    experiment: str
    model: str
    seeds: tuple[int, ...]
    folders: tuple[str, ...]
    differs: tuple[str, ...]
    """What sets this group apart from others of the same experiment and model."""
    warning: str | None
    lines: tuple[Line, ...]
    comparisons: tuple[SeedComparison, ...]
    pooled: tuple[Pooled, ...]


def read(folders: Sequence[Path]) -> list[FinishedRun]:
    """Every run below the folders that scored a method, each once."""
    paths: dict[Path, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder; expected one with finished runs, such as outputs/laptop14")
        for path in sorted(folder.rglob("results.json")):
            paths.setdefault(path.resolve(), path)
    runs = [run for path in paths.values() if (run := _read_run(path)).record.methods]
    if not runs:
        named = ", ".join(map(str, folders))
        raise DataError(
            f"{named}: no results.json with scored methods below; expected finished runs, so run `absa-edit train`"
        )
    return runs


def _read_run(path: Path) -> FinishedRun:
    record = load(RunRecord, path)
    if record.schema != SCHEMA:
        raise RecordError(f"{path} has schema {record.schema}: expected {SCHEMA}; run it again with this version")
    model = record.model
    facts = {"experiment": record.experiment, "model": model.name, "weights": model.sha256, "dtype": model.dtype}
    facts["absa_edit"] = record.versions.get("absa_edit", "unknown")
    for split in ("train", "dev"):
        if split in record.data:
            facts[f"{split} data"] = content_hash(record.data[split])
    settings = kept_settings(path.parent / ".hydra" / "config.yaml")
    if not settings:  # lost on the way here, maybe: folders that begin with a dot are easily left behind
        facts["settings"] = record.config_hash
    if settings.get("trace.dtype") == "None" and settings.get("trace.engine") == Engine.exact:
        settings["trace.dtype"] = Dtype.float32.value  # what it was before a run said so
    loud = {key: value for key, value in settings.items() if not f"{key}.".startswith(tuple(f"{q}." for q in QUIET))}
    return FinishedRun(path.parent, record, facts | loud)


def compared(runs: Sequence[FinishedRun], against: str | None, draws: int) -> list[Group]:
    """One group for each experiment, model and settings, in the order in which they were found."""
    known = dict.fromkeys(name for run in runs for name in run.record.methods)
    if against is not None and against not in known:
        raise SettingsError(f"--against {against}: expected one of the methods {', '.join(known)}")
    groups: dict[tuple[tuple[str, str], ...], list[FinishedRun]] = {}
    for run in runs:
        groups.setdefault(run.key(), []).append(run)
    return [_group(members, runs, against, draws) for members in groups.values()]


def _group(members: Sequence[FinishedRun], runs: Sequence[FinishedRun], against: str | None, draws: int) -> Group:
    by_seed: dict[int, FinishedRun] = {}
    for run in members:
        other = by_seed.setdefault(run.record.seed, run)
        if other is not run:
            raise DataError(
                f"{other.folder} and {run.folder} are both seed {run.record.seed} of the same experiment, model and "
                "settings: expected each seed once; name only one of them"
            )
    seeds, first = sorted(by_seed), by_seed[min(by_seed)].record
    rows: Rows = {}
    for seed in seeds:
        for method in by_seed[seed].record.methods:
            for test, predictions in _predictions(by_seed[seed], method).items():
                rows.setdefault(method, {}).setdefault(test, {})[seed] = predictions
    pairs, asked_of = _pairs(list(rows), first, against), questions(first)
    return Group(
        first.experiment,
        first.model.name,
        tuple(seeds),
        tuple(str(by_seed[seed].folder) for seed in seeds),
        _differences(members[0], runs),
        sample_warning(first),
        tuple(_lines(rows, {seed: run.record for seed, run in by_seed.items()}, draws)),
        compare_seeds(pairs, rows, asked_of, draws=draws, rng=_generator(seeds[0], "compare")),
        pool(pairs, rows, asked_of, draws=draws, rng=_generator(seeds[0], "pooled")),
    )


def _predictions(run: FinishedRun, method: str) -> dict[str, tuple[Prediction, ...]]:
    """The predictions of a method by test set, held to the confusion tables of results.json."""
    path = run.folder / "methods" / method / "predictions.jsonl"
    if not path.is_file():
        raise RecordError(f"{path}: no such file, and results.json has scores of {method}; run it again")
    predictions = load_predictions(path)
    scores = run.record.methods[method].scores
    by_test = {test: tuple(r for r in predictions if r.test == test) for test in scores}
    for test, rows in by_test.items():
        count = Counter((r.gold, r.predicted) for r in rows)
        if scores[test].confusion != tuple(tuple(count[g, p] for p in scores[test].f1) for g in scores[test].f1):
            raise RecordError(f"{path}: not the answers on {test} that results.json was made of; run it again")
    return by_test


def _differences(run: FinishedRun, runs: Sequence[FinishedRun]) -> tuple[str, ...]:
    """The facts in which a run differs from others of its experiment and model, as `name value`."""
    alike = [r for r in runs if all(r.facts[name] == run.facts[name] for name in ("experiment", "model"))]
    names = sorted({name for r in alike for name in r.facts})
    return tuple(
        f"{name} {run.facts.get(name, 'unknown')}" for name in names if len({r.facts.get(name) for r in alike}) > 1
    )


def _lines(rows: Rows, records: dict[int, RunRecord], draws: int) -> Iterator[Line]:
    """A line for each test set and method; with one seed the intervals are those of its results.json."""
    tests = dict.fromkeys(t for record in records.values() for t in tests_in_order(record))
    methods = dict.fromkeys(m for record in records.values() for m in methods_in_order(record))
    first = records[min(records)]
    for test in tests:
        for method in methods:
            by_seed = rows[method].get(test)
            if by_seed is None:
                continue
            methods_of = [records[seed].methods[method] for seed in sorted(by_seed)]
            fits = [m.fit.seconds for m in methods_of if m.fit is not None]
            yield Line(
                test,
                test == own_test(first),
                method,
                seed_score(by_seed, draws=draws, rng=_generator(min(by_seed), f"bootstrap {test}")),
                tuple(m.trainable for m in methods_of),
                float(np.mean(fits)) if fits else None,
            )


def _pairs(methods: Sequence[str], record: RunRecord, against: str | None) -> list[tuple[str, str]]:
    """Those that the run compared itself; with `against` that method with each other."""
    if against is None and record.comparisons:
        return [pair for pair in dict.fromkeys((c.a, c.b) for c in record.comparisons) if set(pair) <= set(methods)]
    first = against or focus(record)
    return [(first, other) for other in methods if other != first] if first and first in methods else []


def _generator(seed: int, use: str) -> np.random.Generator:
    """The generator that a run of this seed has for the use, so that one seed gives the figures of its run."""
    return np.random.default_rng([seed, zlib.crc32(use.encode())])
