"""Tables, charts and sections as data: made by stages and analyses, drawn by reports, terminal and trackers."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Table:
    """Heads and rows of text; cells may hold `code` and **bold**."""

    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""
    """What has to be known to read it, in a sentence or two."""


@dataclass(frozen=True, slots=True)
class Point:
    """A point of a chart with its interval; `low` and `high` are `y` where there is none."""

    x: int | float
    y: int | float
    low: int | float
    high: int | float


@dataclass(frozen=True, slots=True)
class Chart:
    """Lines with intervals around them."""

    x: str
    """What runs across, with its unit; `y` what runs up."""
    y: str
    lines: dict[str, tuple[Point, ...]]


@dataclass(frozen=True, slots=True)
class Section:
    """What a part of a run found, as every report shows it."""

    title: str
    sentence: str
    """The finding."""
    table: Table | None = None
    chart: Chart | None = None


def markdown(table: Table) -> list[str]:
    """Markdown lines of a table, its caption above it."""
    caption = [table.caption, ""] if table.caption else []
    return [*caption, *pipe_table(table.heads, table.rows)]


def pipe_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Markdown lines of a table; a bar inside a cell is escaped."""
    lines = [heads, ["---"] * len(heads), *rows]
    return ["| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines]


def latex(table: Table, caption: str) -> Iterator[str]:
    """Lines of a table for LaTeX with the package `booktabs`."""
    yield from (r"\begin{table}", r"\centering", rf"\caption{{{_escaped(caption)}}}")
    yield from (rf"\begin{{tabular}}{{{'l' * len(table.heads)}}}", r"\toprule")
    for number, row in enumerate((table.heads, *table.rows)):
        yield " & ".join(map(_escaped, row)) + r" \\"
        if number == 0:
            yield r"\midrule"
    yield from (r"\bottomrule", r"\end{tabular}", r"\end{table}", "")


def csv_lines(rows: Iterable[Sequence[object]]) -> Iterator[str]:
    """A line a row, quoted where it has to be."""
    for row in rows:
        text = io.StringIO()
        csv.writer(text, lineterminator="").writerow(row)
        yield text.getvalue()


SIGNS = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
SIGNS |= {sign: f"\\{sign}" for sign in "&%#_${}"}


def _escaped(text: str) -> str:
    """Text as LaTeX prints it, without the marks of code and bold."""
    return "".join(SIGNS.get(sign, sign) for sign in text.replace("**", "").replace("`", ""))
