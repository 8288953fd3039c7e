"""Tables as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def pipe_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Markdown lines of a table; a bar inside a cell is escaped."""
    lines = [heads, ["---"] * len(heads), *rows]
    return ["| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines]
