"""The tables that end a run on the terminal, what they mean in a few sentences, and the bar while it goes on."""

from __future__ import annotations

import logging
import re
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TypeVar

import rich.table
from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.padding import Padding
from rich.panel import Panel
from rich.text import Text
from tqdm import tqdm

from absa_edit.report.conclusions import findings, sample_warning
from absa_edit.report.descriptions import plan
from absa_edit.report.formatting import duration
from absa_edit.report.lookup import metrics_of, tests_in_order
from absa_edit.report.tables import score_table
from absa_edit.results import RunRecord
from absa_edit.table import Section, Table

log = logging.getLogger("absa_edit")

T = TypeVar("T")

SECONDS_A_LINE = 30.0
"""Between two lines about progress where standard error is no terminal."""


def print_results(record: RunRecord, console: Console) -> None:
    """Print the scores, the conclusions, the analyses and, on the bundled sample, a warning."""
    warning = sample_warning(record)
    if warning is not None:
        console.print(Panel(Text(warning, style="bold"), border_style="yellow"))
    about = f"{record.experiment} · {record.model.name} · seed {record.seed}"
    console.print(Text(about, style="bold"), highlight=False)
    if tests_in_order(record):
        print_table(score_table(record, *metrics_of(record), cost=True), console, keep=2)
    located = [f"Plan: {plan(record.plan, record.model)}"] if record.plan else []
    sentences = [*located, *findings(record)]
    if sentences:
        console.print(Padding(Text("\n").join(Text("• ") + styled(line) for line in sentences), (1, 0, 0, 0)))
    for analysis in record.analyses.values():
        print_section(analysis.section, console)


def print_section(section: Section, console: Console) -> None:
    """Print what a part of a run found."""
    console.print(Text(f"\n{section.title}", style="bold"))
    console.print(styled(section.sentence))
    if section.table is not None:
        print_table(section.table, console)


def print_table(table: Table, console: Console, *, keep: int = 1) -> None:
    """Print a table, its caption below it.

    Columns that do not fit the width go into further tables, each with the first `keep`, so that no figure is broken.
    """
    for piece in _pieces(table, console, keep):
        console.print(rich_table(piece))
    if table.caption:
        console.print(styled(table.caption, style="dim"))


def _pieces(table: Table, console: Console, keep: int) -> Iterator[Table]:
    first, left = list(range(keep)), list(range(keep, len(table.heads)))
    while left:
        fits = max(1, *(n for n in range(len(left) + 1) if _fits(_columns(table, first + left[:n]), console)))
        yield _columns(table, first + left[:fits])
        left = left[fits:]


def _columns(table: Table, numbers: list[int]) -> Table:
    rows = tuple(tuple(row[i] for i in numbers) for row in table.rows)
    return replace(table, heads=tuple(table.heads[i] for i in numbers), rows=rows)


def _fits(table: Table, console: Console) -> bool:
    wanted = Measurement.get(console, console.options, rich_table(table)).maximum
    # A table never asks for more than the console, so a full width may be a cut one.
    return wanted < console.width


def rich_table(table: Table) -> rich.table.Table:
    """The table for a terminal; rows that begin alike stand together, a note in brackets below its head."""
    made = rich.table.Table(box=box.SIMPLE_HEAD, header_style="", border_style="dim", pad_edge=False)
    for head in table.heads:
        name, bracket, note = head.partition(" (")
        made.add_column(Text(name, style="bold") + Text(f"\n({note}" if bracket else "", style="dim"), overflow="fold")
    grouped = len({row[0] for row in table.rows}) < len(table.rows)
    for before, row in zip([None, *table.rows], table.rows, strict=False):
        if grouped and before and row[0] not in ("", before[0]):
            made.add_section()
        made.add_row(*map(styled, row))
    return made


def styled(text: str, style: str = "") -> Text:
    """A cell or sentence with its `code` coloured and its **bold** bold."""
    line = Text(style=style)
    for plain, bold, code in re.findall(r"(.*?)(?:\*\*(.+?)\*\*|`([^`]+)`|$)", text, flags=re.DOTALL):
        line.append(plain).append(bold, style="bold").append(code, style="cyan")
    return line


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
            left = f", {duration((total - done) * seconds)} left" if total else ""
            log.info("%s: %s %s, %s%s", name, many, "batches" if unit == "batch" else f"{unit}s", rate, left)
        yield item
