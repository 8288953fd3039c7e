"""How every figure looks: canvas, colours of the methods, axes, labels that keep out of each other's way."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.transforms import Bbox, BboxBase

from absa_edit.report.lookup import baseline, focus, methods_in_order, random_control
from absa_edit.results import RunRecord
from absa_edit.storage import atomic

DPI = 200
INK, MUTED, GRID = "#1F2328", "#6B7280", "#E5E7EB"


@dataclass(frozen=True, slots=True)
class Look:
    """Colour and marker of a method; the marker repeats the colour for those who cannot tell it."""

    colour: str
    marker: str


@dataclass(frozen=True, slots=True)
class PointLabel:
    """The name of a point at (x, y) with a bar from `low` to `high`, in data units."""

    text: str
    colour: str
    x: float
    y: float
    low: float
    high: float


UNTRAINED, FOCUS, CONTROL = Look("#6B7280", "x"), Look("#0072B2", "o"), Look("#E69F00", "s")
# Of the other methods in order; Okabe and Ito's palette without its yellow, which is too pale for lines on white.
COLOURS = ("#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#1F2328", "#8C6BB1", "#8C564B")
MARKERS = ("D", "^", "v", "P", "X", "<", ">")

LABELS = (
    ("#0072b2", "#5fb4ea"),
    ("#d55e00", "#f0915a"),
    ("#b9c0c9", "#59626e"),
    ("#009e73", "#4fc79f"),
    ("#cc79a7", "#dfa3c4"),
    ("#e69f00", "#f2bf55"),
    ("#56b4e9", "#2f83b5"),
    ("#8c6bb1", "#b39ad0"),
    ("#8c564b", "#bb8a80"),
    ("#1f2328", "#e7e9ec"),
)
"""Colours of labels in order, on light and on dark ground."""


def looks(record: RunRecord) -> dict[str, Look]:
    """The look of each method: its role's, or the next of the palette; then markers move on beside the colours."""
    roles = {focus(record): FOCUS, random_control(record): CONTROL, baseline(record): UNTRAINED}
    others = [name for name in methods_in_order(record) if name not in roles]
    turn = len(COLOURS)
    spare = {name: Look(COLOURS[i % turn], MARKERS[(i + i // turn) % turn]) for i, name in enumerate(others)}
    return {name: roles.get(name) or spare[name] for name in methods_in_order(record)}


def label_colours(count: int) -> list[tuple[str, str]]:
    """A colour for each of `count` labels on light ground, and one on dark."""
    return [LABELS[i % len(LABELS)] for i in range(count)]


def canvas(width: float, height: float) -> Figure:
    """An empty white figure in inches, outside pyplot's global state."""
    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08), facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def dress(axes: Axes, *, grid: str) -> None:
    """Leave only what carries data: no frame at the top and right, a pale grid along `grid`."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(MUTED)
    axes.tick_params(colors=INK, labelsize=9, length=3, color=MUTED)
    axes.grid(axis=grid, color=GRID, linewidth=0.8)  # type: ignore[arg-type]
    axes.set_axisbelow(True)


def headline(figure: Figure, title: str, subtitle: str) -> None:
    """Write a title and a quieter text under it, wrapped to the width, above the axes."""
    width, height = figure.get_size_inches()
    subtitle = textwrap.fill(subtitle, int(width / 0.077))
    lines = subtitle.count("\n") + 1
    figure.text(0.012, 1 - 0.1 / height, title, size=12.5, weight="bold", color=INK, va="top")
    figure.text(0.012, 1 - 0.34 / height, subtitle, size=9.5, color=MUTED, va="top", linespacing=1.35)
    top = (0.46 + 0.19 * lines) / height
    layout = figure.get_layout_engine()
    if isinstance(layout, ConstrainedLayoutEngine):
        layout.set(rect=(0, 0, 1, 1 - top))


def save(figure: Figure, path: Path) -> None:
    """Write a PNG, whole or not at all; the same figure gives the same bytes."""
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=DPI, metadata={"Software": None})


def spread(values: Sequence[float], gap: float) -> list[float]:
    """The values moved apart to at least `gap`, in the same order and as little as a stack allows."""
    order = np.argsort(values, kind="stable")
    stacks: list[tuple[list[int], float]] = []  # members from low to high, middle of the stack
    for i in order:
        stacks.append(([int(i)], float(values[i])))
        while len(stacks) > 1 and _bottom(stacks[-1], gap) - _top(stacks[-2], gap) < gap - 1e-12:
            upper, lower = stacks.pop(), stacks.pop()
            members = lower[0] + upper[0]
            stacks.append((members, float(np.mean([values[m] for m in members]))))
    placed = [0.0] * len(values)
    for stack in stacks:
        for rank, member in enumerate(stack[0]):
            placed[member] = _bottom(stack, gap) + rank * gap
    return placed


def _bottom(stack: tuple[list[int], float], gap: float) -> float:
    return stack[1] - gap * (len(stack[0]) - 1) / 2


def _top(stack: tuple[list[int], float], gap: float) -> float:
    return stack[1] + gap * (len(stack[0]) - 1) / 2


def label_points(axes: Axes, labels: Sequence[PointLabel], taken: Sequence[Bbox]) -> None:
    """Write each label beside its point, or over or under its bar, where it first hits nothing taken.

    `taken` are boxes in pixels (points, bars, other text); call it when limits and layout are settled.
    """
    frame, used = axes.get_window_extent(), list(taken)
    for label in labels:
        places = [(label.y, 10, 0), (label.y, -10, 0)]
        places += [(y, 0, sign * (9 + 13 * k)) for k in range(4) for y, sign in ((label.high, 1), (label.low, -1))]
        for y, dx, dy in places:
            written = axes.annotate(
                label.text, (label.x, y), (dx, dy), textcoords="offset points", size=9.5, color=label.colour,
                weight="bold", ha="left" if dx > 0 else "right" if dx < 0 else "center", va="center",
            )  # fmt: skip
            written.set_in_layout(False)
            box = written.get_window_extent().padded(2)
            if _inside(box, frame) and not any(box.overlaps(other) for other in used):
                break
            if (y, dx, dy) != places[-1]:
                written.remove()
        used.append(box)


def _inside(box: Bbox, frame: BboxBase) -> bool:
    return bool(frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1)
