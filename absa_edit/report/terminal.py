"""The table that ends a run on the terminal, and what it means in a few sentences."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from rich import box
from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.measure import Measurement
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text
from tqdm import tqdm

from absa_edit.report import formatting
from absa_edit.report.conclusions import findings, sample_warning
from absa_edit.report.tables import (
    METRICS,
    best,
    interval_of,
    majority_of,
    methods_in_order,
    standing,
    tests_in_order,
)
from absa_edit.results import RunRecord

log = logging.getLogger("absa_edit")

T = TypeVar("T")

SECONDS_A_LINE = 30.0
"""Between two lines about progress where standard error is no terminal."""


def print_results(record: RunRecord, console: Console) -> None:
    """Print the scores, the conclusions and, on the bundled sample, a warning.

    Test sets that do not fit the width go into further tables, so that no figure is ever broken.
    """
    warning = sample_warning(record)
    if warning is not None:
        console.print(Panel(Text(warning, style="bold"), border_style="yellow"))
    about = f"{record.experiment} · {record.model.name} · seed {record.seed}"
    console.print(Text(about, style="bold"), highlight=False)
    for table in score_tables(record, console):
        console.print(table)
    note = "Percent with 95 % intervals over sentences; best of a column in bold."
    console.print(Text(note, style="dim"))
    console.print(_sentences(findings(record)), highlight=False)


def score_tables(record: RunRecord, console: Console) -> tuple[Table, ...]:
    """Tables with methods as rows and test sets as columns, each as wide as the console at most."""
    left = list(tests_in_order(record))
    made: list[Table] = []
    while left or not made:
        cost = not made
        fits = max(1, *(k for k in range(len(left) + 1) if _fits(record, left[:k], cost, console)))
        made.append(_table(record, left[:fits], cost))
        left = left[fits:]
    return tuple(made)


def _fits(record: RunRecord, tests: Sequence[str], cost: bool, console: Console) -> bool:
    wanted = Measurement.get(console, console.options, _table(record, tests, cost)).maximum
    # A table never asks for more than the console, so a full width may be a cut one.
    return wanted < console.width or not tests


def _table(record: RunRecord, tests: Sequence[str], cost: bool) -> Table:
    table = Table(box=box.SIMPLE_HEAD, header_style="", border_style="dim", pad_edge=False)
    table.add_column("method", no_wrap=True)
    table.add_column("", style="dim", no_wrap=True)
    for test in tests:
        data = record.data.get(f"test/{test}")
        n = "" if data is None else f" · n {data.n:,}"
        table.add_column(f"[bold]{escape(test)}[/]\n[dim]{standing(record, test)}{n}[/]", no_wrap=True)
    if cost:
        table.add_column("trainable", justify="right", no_wrap=True)
        table.add_column("fit", justify="right", no_wrap=True)
    for name in methods_in_order(record):
        table.add_row(*_row(record, name, tests, cost), style="dim" if name == "zero_shot" else "")
    table.add_section()
    table.add_row(*_majority_row(record, tests, cost), style="dim")
    return table


def _row(record: RunRecord, name: str, tests: Sequence[str], cost: bool) -> list[RenderableType]:
    method = record.methods[name]
    cells: list[RenderableType] = [Text(name, style="cyan" if name == "edit" else ""), _metric_names()]
    cells += [_scores(record, name, test) for test in tests]
    if cost:
        share = f"\n{formatting.percent(method.share)}" if method.trainable else ""
        cells.append(Text(f"{method.trainable:,}{share}"))
        cells.append(Text("-" if method.fit is None else formatting.duration(method.fit.seconds)))
    return cells


def _scores(record: RunRecord, name: str, test: str) -> Text:
    lines = []
    for metric in METRICS:
        score = interval_of(record, name, test, metric)
        top = name in best(record, test, metric)
        lines.append(Text("-" if score is None else score.percent(), style="bold" if top else ""))
    return Text("\n").join(lines)


def _majority_row(record: RunRecord, tests: Sequence[str], cost: bool) -> list[RenderableType]:
    cells: list[RenderableType] = [Text("majority class"), _metric_names()]
    for test in tests:
        known = majority_of(record, test)
        lines = ["-"] if known is None else [f"{100 * known.accuracy:.1f}  ({known.label})"]
        cells.append(Text("\n".join([*lines, "-" if known is None else f"{100 * known.macro_f1:.1f}"])))
    return cells + [Text("0"), Text("-")] * cost


def _metric_names() -> Text:
    return Text("\n".join(METRICS.values()))


def _sentences(said: Sequence[str]) -> RenderableType:
    """The sentences as a list, names in backticks coloured."""
    lines = []
    for sentence in said:
        line = Text("• ")
        for i, piece in enumerate(sentence.split("`")):
            line.append(piece, style="cyan" if i % 2 else "")
        lines.append(line)
    return Padding(Group(*lines), (1, 0, 0, 0)) if lines else Text("")


def bar(items: Iterable[T], name: str, total: int | None = None, *, unit: str = "batch") -> Iterable[T]:
    """The items, with a progress bar on standard error while they pass; a line now and then where it is no terminal.

    It tells how many are done, how many a second, and where the total is known the time that is left.
    """
    if sys.stderr.isatty():
        shown: Iterable[T] = tqdm(items, name, total, leave=False, mininterval=0.2, delay=0.2, unit=unit)
        return shown
    return _logged(items, name, total, unit)


def _logged(items: Iterable[T], name: str, total: int | None, unit: str) -> Iterator[T]:
    """The items, with a line in the log every `SECONDS_A_LINE`."""
    began = last = time.monotonic()
    for done, item in enumerate(items):
        now = time.monotonic()
        if done and now - last >= SECONDS_A_LINE:
            last = now
            seconds = (now - began) / done
            many = f"{done:,} of {total:,}" if total else f"{done:,}"
            rate = f"{1 / seconds:.1f} a second" if seconds < 1 else f"{seconds:.1f} s each"
            left = f", {formatting.duration((total - done) * seconds)} left" if total else ""
            log.info("%s: %s %s, %s%s", name, many, "batches" if unit == "batch" else f"{unit}s", rate, left)
        yield item
