"""Average runs that differ only by the seed, and compare their methods.

    python scripts/compare.py outputs/laptop14/reviewlm
    python scripts/compare.py outputs --against lora --markdown compare.md --json compare.json

Finds every results.json below the folders. Runs that differ in anything but the seed get tables of their own.
"""

from __future__ import annotations

import argparse
import sys
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from absa_edit.errors import AbsaEditError, DataError, RecordError, SettingsError
from absa_edit.evaluate.seeds import SeedComparison, SeedScore, compare_seeds, seed_score
from absa_edit.records import POLARITIES, SCHEMA, Prediction, RunRecord
from absa_edit.report import words
from absa_edit.report.findings import sample_warning
from absa_edit.report.results import pipe_table
from absa_edit.report.tables import METRICS, methods_in_order, own_test, tests_in_order
from absa_edit.storage import atomic, content_hash, load, load_predictions, to_json, write_json

QUIET = ("seed", "name", "output", "stages", "track", "export", "data.path", "model.device", "model.device_map")
"""Settings that change no result, or have their own place in the table."""

Rows = dict[str, dict[str, dict[int, tuple[Prediction, ...]]]]
"""Predictions by method, test set and seed."""


@dataclass(frozen=True, slots=True)
class Run:
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
    own: bool
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", help="folders with finished runs somewhere below")
    parser.add_argument("--against", metavar="METHOD", help="method set against all others (edit where there is one)")
    parser.add_argument("--resamples", type=int, default=2000, help="bootstrap and permutation draws")
    parser.add_argument("--markdown", type=Path, metavar="FILE")
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    if arguments.resamples < 1:
        parser.error("--resamples: expected 1 or more")
    try:
        groups = compared(read(arguments.folders), arguments.against, arguments.resamples)
        write(groups, arguments)
    except (AbsaEditError, OSError) as error:
        sys.exit(f"error: {error}")


def read(folders: Sequence[Path]) -> list[Run]:
    """Every run below the folders that scored a method, each once."""
    paths: dict[Path, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder; expected one with finished runs, such as outputs/laptop14")
        for path in sorted(folder.rglob("results.json")):
            paths.setdefault(path.resolve(), path)
    runs = [run for path in paths.values() if (run := read_run(path)).record.methods]
    if not runs:
        told = ", ".join(map(str, folders))
        raise DataError(f"{told}: no results.json with scored methods below; expected finished runs, so run train.py")
    return runs


def read_run(path: Path) -> Run:
    record = load(RunRecord, path)
    if record.schema != SCHEMA:
        raise RecordError(f"{path} has schema {record.schema}: expected {SCHEMA}; run it again with this version")
    model = record.model
    facts = {"experiment": record.experiment, "model": model.name, "weights": model.sha256, "dtype": model.dtype}
    facts["absa_edit"] = record.versions.get("absa_edit", "unknown")
    for split in ("train", "dev"):
        if split in record.data:
            facts[f"{split} data"] = content_hash(record.data[split])
    return Run(path.parent, record, facts | dict(settings(path.parent)))


def settings(folder: Path) -> Iterator[tuple[str, str]]:
    """The settings that train.py kept in the run folder, as dotted keys, without those that change no result."""
    path = folder / ".hydra" / "config.yaml"
    if not path.is_file():
        return
    for key, value in flat(OmegaConf.to_container(OmegaConf.load(path))):
        if not any(key == quiet or key.startswith(f"{quiet}.") for quiet in QUIET):
            yield key, str(value)


def flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if not isinstance(value, dict):
        yield key, value
        return
    for name, inner in value.items():
        yield from flat(inner, f"{key}.{name}" if key else str(name))


def compared(runs: Sequence[Run], against: str | None, draws: int) -> list[Group]:
    """One group for each experiment, model and settings, in the order in which they were found."""
    known = dict.fromkeys(name for run in runs for name in run.record.methods)
    if against is not None and against not in known:
        raise SettingsError(f"--against {against}: expected one of the methods {', '.join(known)}")
    groups: dict[tuple[tuple[str, str], ...], list[Run]] = {}
    for run in runs:
        groups.setdefault(run.key(), []).append(run)
    return [group(members, runs, against, draws) for members in groups.values()]


def group(members: Sequence[Run], runs: Sequence[Run], against: str | None, draws: int) -> Group:
    by_seed: dict[int, Run] = {}
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
            for test, found in predictions(by_seed[seed], method).items():
                rows.setdefault(method, {}).setdefault(test, {})[seed] = found
    return Group(
        first.experiment,
        first.model.name,
        tuple(seeds),
        tuple(str(by_seed[seed].folder) for seed in seeds),
        differences(members[0], runs),
        sample_warning(first),
        tuple(lines(rows, {seed: run.record for seed, run in by_seed.items()}, draws)),
        compare_seeds(pairs(list(rows), against), rows, draws=draws, rng=generator(seeds[0], "compare")),
    )


def predictions(run: Run, method: str) -> dict[str, tuple[Prediction, ...]]:
    """The predictions of a method by test set, held to the confusion tables of results.json."""
    path = run.folder / "methods" / method / "predictions.jsonl"
    if not path.is_file():
        raise RecordError(f"{path}: no such file, and results.json has scores of {method}; run it again")
    every = load_predictions(path)
    scores = run.record.methods[method].scores
    by_test = {test: tuple(r for r in every if r.test == test) for test in scores}
    for test, rows in by_test.items():
        count = Counter((r.gold, r.predicted) for r in rows)
        if scores[test].confusion != tuple(tuple(count[g, p] for p in POLARITIES) for g in POLARITIES):
            raise RecordError(f"{path}: not the answers on {test} that results.json was made of; run it again")
    return by_test


def differences(run: Run, runs: Sequence[Run]) -> tuple[str, ...]:
    """The facts in which a run differs from others of its experiment and model, as `name value`."""
    alike = [r for r in runs if all(r.facts[name] == run.facts[name] for name in ("experiment", "model"))]
    names = sorted({name for r in alike for name in r.facts})
    return tuple(
        f"{name} {run.facts.get(name, 'unknown')}" for name in names if len({r.facts.get(name) for r in alike}) > 1
    )


def lines(rows: Rows, records: dict[int, RunRecord], draws: int) -> Iterator[Line]:
    """A line for each test set and method; with one seed the intervals are those of its results.json."""
    tests = dict.fromkeys(t for record in records.values() for t in tests_in_order(record))
    methods = dict.fromkeys(m for record in records.values() for m in methods_in_order(record))
    first = records[min(records)]
    for test in tests:
        for method in methods:
            found = rows[method].get(test)
            if found is None:
                continue
            made = [records[seed].methods[method] for seed in sorted(found)]
            fits = [m.fit.seconds for m in made if m.fit is not None]
            yield Line(
                test,
                test == own_test(first),
                method,
                seed_score(found, draws=draws, rng=generator(min(found), f"bootstrap {test}")),
                tuple(m.trainable for m in made),
                float(np.mean(fits)) if fits else None,
            )


def pairs(methods: Sequence[str], against: str | None) -> list[tuple[str, str]]:
    focus = against or ("edit" if "edit" in methods else methods[0])
    return [(focus, other) for other in methods if other != focus] if focus in methods else []


def generator(seed: int, use: str) -> np.random.Generator:
    """The generator that a run of this seed has for the use, so that one seed gives the figures of its run."""
    return np.random.default_rng([seed, zlib.crc32(use.encode())])


def write(groups: Sequence[Group], arguments: argparse.Namespace) -> None:
    console = Console(width=None if sys.stdout.isatty() else 120)
    for one in groups:
        show(one, console)
    if arguments.markdown:
        with atomic(arguments.markdown) as temporary:
            temporary.write_text("\n".join(line for g in groups for line in markdown(g)), encoding="utf-8")
    if arguments.json:
        plain = {"resamples": arguments.resamples, "groups": [to_json(one) for one in groups]}
        write_json(plain, arguments.json)


def show(one: Group, console: Console) -> None:
    console.print(Text(title(one), style="bold"))
    for note in about(one):
        console.print(Text(note, style="dim"))
    for heads, cells in (score_cells(one), comparison_cells(one)):
        if not cells:
            continue
        table = Table(box=box.SIMPLE_HEAD, border_style="dim", pad_edge=False)
        for head in heads:
            table.add_column(head, overflow="fold")
        for before, row in zip([cells[0], *cells], cells, strict=False):
            if row[0] != before[0]:
                table.add_section()
            table.add_row(*map(Text, row))
        console.print(table)


def markdown(one: Group) -> Iterator[str]:
    yield from (f"## {title(one)}", "")
    for note in about(one):
        yield from (note, "")
    for heads, cells in (score_cells(one), comparison_cells(one)):
        if cells:
            yield from (*pipe_table(heads, cells), "")


def title(one: Group) -> str:
    told = f"seed {one.seeds[0]}" if len(one.seeds) == 1 else f"seeds {', '.join(map(str, one.seeds))}"
    return f"{one.experiment} · {one.model} · {told}"


def about(one: Group) -> list[str]:
    """What the figures are, in a few sentences."""
    notes = [one.warning] if one.warning else []
    if one.differs:
        notes.append(f"Not averaged with other runs of this experiment and model: {'; '.join(one.differs)}.")
    if len(one.seeds) == 1:
        notes.append("One seed: percent with plain 95 % intervals over sentences; the luck of the seed is not in them.")
    else:
        notes.append(
            "Percent, mean over seeds, with 95 % intervals that resample seeds, then sentences (sentences only where "
            f"a row has one seed). Resampling {len(one.seeds)} seeds shows {100 - 100 // len(one.seeds)} % of the "
            "variance between seeds."
        )
    if any(line.own for line in one.lines) and not all(line.own for line in one.lines):
        notes.append("Own: the test set of the training data; the others are out of domain.")
    if one.comparisons:
        notes.append(
            "Differences in points; p by permutation of sentences, swapped alike in all seeds; corrected by "
            "Benjamini-Hochberg over this table; * where that is below 0.05 and the interval leaves out 0."
        )
    return notes


def score_cells(one: Group) -> tuple[list[str], list[list[str]]]:
    heads = ["test set", "method", *METRICS.values(), "seeds", "n", "trainable", "mean fit"]
    rows = []
    for line in one.lines:
        few, many = min(line.trainable), max(line.trainable)
        rows.append(
            [
                f"{line.test} (own)" if line.own else line.test,
                line.method,
                line.score.accuracy.percent(),
                line.score.macro_f1.percent(),
                str(len(line.score.seeds)),
                f"{line.score.macro_f1.n:,}",
                f"{few:,}" if few == many else f"{few:,}-{many:,}",
                "-" if line.fit_seconds is None else words.duration(line.fit_seconds),
            ]
        )
    return heads, rows


def comparison_cells(one: Group) -> tuple[list[str], list[list[str]]]:
    heads = ["test set", "a - b", "metric", "difference", "p", "p corrected", "seeds", "n"]
    order = list(dict.fromkeys(line.test for line in one.lines))
    rows = []
    for c in sorted(one.comparisons, key=lambda c: order.index(c.test)):
        told = c.p_corrected < 0.05 and not c.low <= 0 <= c.high
        rows.append(
            [
                c.test,
                f"{c.a} - {c.b}",
                METRICS[c.metric],  # type: ignore[index]
                f"{words.points(c.difference)} {words.between(c.low, c.high)}",
                f"{c.p:.4f}",
                f"{c.p_corrected:.4f}{' *' * told}",
                str(len(c.seeds)),
                f"{c.n:,}",
            ]
        )
    return heads, rows


if __name__ == "__main__":
    main()
