"""Small HTML tables without any library, readable in light and dark: how records look in a notebook."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

UP, DOWN = (0, 114, 178), (213, 94, 0)  # Okabe and Ito's blue and vermillion


def table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """An HTML table; cells that begin with `<td` are taken as they are, all others are escaped."""
    lines = ["".join(f"<th>{escape(cell)}</th>" for cell in head)]
    lines += ["".join(c if c.startswith("<td") else f"<td>{escape(c)}</td>" for c in row) for row in rows]
    return f"<table><caption>{escape(caption)}</caption>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def paragraph(text: str) -> str:
    """An HTML paragraph."""
    return f"<p>{escape(text)}</p>"


def shaded(value: float, largest: float) -> str:
    """A cell coloured by `value`, which is at most `largest` in size; empty for nan."""
    if value != value:
        return ""
    red, green, blue = UP if value > 0 else DOWN
    return f'<td style="background:rgba({red},{green},{blue},{0.8 * abs(value) / largest:.2f})">{value:.0f}</td>'


def filled(text: str) -> str:
    """A cell that stands out."""
    return f'<td style="background:rgba({",".join(map(str, UP))},0.5)">{escape(text)}</td>'
