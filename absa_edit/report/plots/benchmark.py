"""The figures of a benchmark: scores against what they cost, and by number of training examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from matplotlib.transforms import Bbox

from absa_edit.report.formatting import short
from absa_edit.report.plots.style import (
    COLOURS,
    INK,
    MARKERS,
    Look,
    PointLabel,
    canvas,
    dress,
    headline,
    label_points,
    save,
)
from absa_edit.results import Interval

BELOW = "bar: 95 % interval over sentences and seeds"


@dataclass(frozen=True)
class BenchmarkPoint:
    """A method's score, a share, at a cost or a number of examples."""

    arm: str
    x: float
    score: Interval


@dataclass(frozen=True)
class Panel:
    """One plot of points; both axes say what they are."""

    title: str
    x: str
    y: str
    points: tuple[BenchmarkPoint, ...]


def score_against(rows: Sequence[Sequence[Panel]], path: Path, *, title: str) -> None:
    """Write a grid of panels; costs are drawn in powers of ten."""
    figure = canvas(4.6 * max(map(len, rows)), 0.8 + 3.9 * len(rows))
    looks = _looks(dict.fromkeys(point.arm for row in rows for panel in row for point in panel.points))
    grid = figure.subplots(len(rows), max(map(len, rows)), squeeze=False)
    drawn = []
    for row, all_axes in zip(rows, grid, strict=True):
        for panel, axes in zip(row, all_axes, strict=True):
            _dots(axes, panel, looks)
            drawn.append((axes, panel))
    headline(figure, title, BELOW)
    figure.draw_without_rendering()
    for axes, panel in drawn:
        labels = [
            PointLabel(p.arm, looks[p.arm].colour, p.x, *(100 * v for v in (p.score.value, p.score.low, p.score.high)))
            for p in panel.points
        ]
        label_points(axes, labels, [_bar(axes, label) for label in labels])
    save(figure, path)


def learning_by_size(lines: Mapping[str, Sequence[BenchmarkPoint]], path: Path, *, title: str) -> None:
    """Write macro-F1 by number of training examples, a line a method."""
    figure = canvas(7.2, 4.8)
    axes = figure.subplots()
    dress(axes, grid="y")
    axes.set_xscale("log")
    looks = _looks(lines)
    for arm, points in lines.items():
        ordered, look = sorted(points, key=lambda point: point.x), looks[arm]
        x = [p.x for p in ordered]
        low, value, high = ([100 * getattr(p.score, key) for p in ordered] for key in ("low", "value", "high"))
        axes.fill_between(x, low, high, color=look.colour, alpha=0.12, linewidth=0)
        axes.plot(x, value, f"{look.marker}-", color=look.colour, linewidth=1.8, markersize=5, label=arm)
    _plain_powers(axes)
    axes.set_xticks(sorted({p.x for points in lines.values() for p in points}))
    axes.set_xlabel("training examples", size=9.5, color=INK)
    axes.set_ylabel("macro-F1 in domain (%)", size=9.5, color=INK)
    axes.legend(frameon=False, fontsize=9, labelcolor=INK, ncols=2)
    headline(figure, title, BELOW)
    save(figure, path)


def _dots(axes: Axes, panel: Panel, looks: Mapping[str, Look]) -> None:
    dress(axes, grid="y")
    axes.set_xscale("log")
    for point in panel.points:
        look, s = looks[point.arm], point.score
        axes.plot([point.x, point.x], [100 * s.low, 100 * s.high], color=look.colour, linewidth=2, alpha=0.5)
        axes.plot(point.x, 100 * s.value, look.marker, color=look.colour, markersize=7)
    axes.margins(x=0.2, y=0.16)
    _plain_powers(axes)
    low, high = axes.get_xlim()
    if high < 20 * low:  # there may be no power of ten between
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    axes.set_xlabel(panel.x, size=9.5, color=INK)
    axes.set_ylabel(panel.y, size=9.5, color=INK)
    axes.set_title(panel.title, size=10, color=INK, loc="left")


def _plain_powers(axes: Axes) -> None:
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: short(x)))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _looks(arms: Mapping[str, object]) -> dict[str, Look]:
    turn = len(COLOURS)
    return {arm: Look(COLOURS[i % turn], MARKERS[(i + i // turn) % len(MARKERS)]) for i, arm in enumerate(arms)}


def _bar(axes: Axes, label: PointLabel) -> Bbox:
    ends = axes.transData.transform([(label.x, label.low), (label.x, label.high)])
    return Bbox(ends + np.array([[-7.0, -3.0], [7.0, 3.0]]) * axes.figure.dpi / 72)
