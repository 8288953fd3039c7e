"""Tables, charts and sections as data: made by stages and analyses, drawn by reports, terminal and trackers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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


def pipe_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Markdown lines of a table; a bar inside a cell is escaped."""
    lines = [heads, ["---"] * len(heads), *rows]
    return ["| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines]
