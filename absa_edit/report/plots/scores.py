"""The figures of a run: scores by test set, learning curves, score against budget, and the trace.

Each function writes one PNG; `write_figures` writes all that a run has the numbers for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter
from matplotlib.transforms import Bbox

from absa_edit.report.conclusions import main_test
from absa_edit.report.formatting import percent, short
from absa_edit.report.lookup import interval_of, majority_of, methods_in_order, standing, tests_in_order
from absa_edit.report.plots.chart import chart_png
from absa_edit.report.plots.heatmap import trace_heatmap
from absa_edit.report.plots.style import (
    INK,
    MUTED,
    Look,
    PointLabel,
    canvas,
    dress,
    headline,
    label_points,
    looks,
    save,
    spread,
)
from absa_edit.results import Interval, RunRecord
from absa_edit.tracing.effects import Effects

__all__ = ["learning_curves", "pareto", "scores_figure", "trace_heatmap", "write_figures"]


def write_figures(
    record: RunRecord, effects: Effects | None, folder: Path, beside: Mapping[str, Effects] = MappingProxyType({})
) -> tuple[str, ...]:
    """Names of the figures written to `folder`; those that the run has no numbers for are left out.

    `beside` are the traces of the `base` and the `edited` model, each drawn as `trace_<name>.png`.
    """
    written = []
    if effects is not None:
        trace_heatmap(
            effects,
            folder / "trace.png",
            model=record.model.name,
            data=record.data["train"].name,
            plan=record.plan,
            trace=record.trace,
        )
        written.append("trace.png")
    others = {"base": record.base_trace, "edited": record.trace_again.trace if record.trace_again else None}
    for name, other in beside.items():
        trace_heatmap(
            other,
            folder / f"trace_{name}.png",
            model=f"{record.model.name} ({name})",
            data=record.data["train"].name,
            trace=others[name],
        )
        written.append(f"trace_{name}.png")
    if tests_in_order(record):
        scores_figure(record, folder / "scores.png")
        written.append("scores.png")
    if any(m.trainable and m.scores for m in record.methods.values()):
        pareto(record, folder / "pareto.png")
        written.append("pareto.png")
    if any(m.fit is not None and m.fit.history for m in record.methods.values()):
        learning_curves(record, folder / "learning.png")
        written.append("learning.png")
    for name, analysis in record.analyses.items():
        if analysis.section.chart is not None:
            chart_png(analysis.section.title, analysis.section.chart, folder / f"analysis_{name}.png")
            written.append(f"analysis_{name}.png")
    return tuple(written)


def scores_figure(record: RunRecord, path: Path) -> None:
    """Write macro-F1 of each method on each test set: a dot with its 95 % interval, one panel a set."""
    methods, tests = methods_in_order(record), tests_in_order(record)
    across = 2 if len(tests) == 4 else min(len(tests), 3)
    down = math.ceil(len(tests) / across)
    figure = canvas(max(1.4 + 2.9 * across, 6.5), 0.75 + down * (0.75 + 0.4 * len(methods)))
    grid = figure.subplots(down, across, squeeze=False, sharex=True, sharey=True)
    for axes, test in zip(grid.flat, tests, strict=False):
        _dots(axes, record, test, methods)
    for axes in list(grid.flat)[len(tests) :]:
        axes.set_visible(False)
    for column in range(across):
        lowest = max(row for row in range(down) if row * across + column < len(tests))
        grid[lowest, column].set_xlabel("macro-F1 (%)", size=9.5, color=INK)
        grid[lowest, column].tick_params(labelbottom=True)
    below = "bar: 95 % interval over sentences · majority: what the commonest label alone would score"
    headline(figure, _on(record, "Macro-F1"), below)
    save(figure, path)


def _dots(axes: Axes, record: RunRecord, test: str, methods: tuple[str, ...]) -> None:
    dress(axes, grid="x")
    chosen = looks(record)
    n = 0
    for row, name in enumerate(methods):
        score = interval_of(record, name, test, "macro_f1")
        if score is not None:
            n = score.n
            _dot(axes, score, row, chosen[name])
    axes.set_yticks(range(len(methods)), methods, size=10, color=INK)
    axes.set_ylim(len(methods) - 0.4, -0.75)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    known = majority_of(record, test)
    always = "" if known is None else f" · majority {100 * known.macro_f1:.1f}"
    axes.set_title(test, size=10.5, weight="bold", color=INK, loc="left", pad=18)
    note = f"{standing(record, test)} · n = {n:,}{always}"
    axes.text(0, 1.0, note, transform=axes.transAxes, size=8.5, color=MUTED, va="bottom")


def _dot(axes: Axes, score: Interval, row: int, look: Look) -> None:
    low, value, high = (100 * v for v in (score.low, score.value, score.high))
    axes.plot([low, high], [row, row], color=look.colour, linewidth=2.2, alpha=0.55, solid_capstyle="round")
    axes.plot(value, row, look.marker, color=look.colour, markersize=7, markeredgewidth=1.6)
    axes.annotate(
        f"{value:.1f}", (value, row), (0, 6.5), textcoords="offset points", size=8.5, color=INK,
        ha="center", va="bottom",
    )  # fmt: skip


def learning_curves(record: RunRecord, path: Path) -> None:
    """Write macro-F1 on the development set by epoch, a line a method, the epoch kept ringed."""
    figure = canvas(7.2, 4.4)
    axes = figure.subplots()
    dress(axes, grid="y")
    chosen, ends = looks(record), []
    for name in methods_in_order(record):
        fit = record.methods[name].fit
        if fit is None or not fit.history:
            continue
        epochs = [row["epoch"] for row in fit.history]
        values = [100 * row["dev_macro_f1"] for row in fit.history]
        look = chosen[name]
        axes.plot(epochs, values, look.marker + "-", color=look.colour, linewidth=1.8, markersize=5)
        kept = [v for e, v in zip(epochs, values, strict=True) if e == fit.best_epoch]
        axes.plot([fit.best_epoch] * len(kept), kept, "o", color=look.colour, markersize=11, fillstyle="none")
        ends.append((name, epochs[-1], values[-1]))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.margins(x=0.04, y=0.08)
    axes.set_xlabel("epoch", size=9.5, color=INK)
    axes.set_ylabel("macro-F1 on the development set (%)", size=9.5, color=INK)
    _name_lines(figure, axes, ends, chosen)
    dev = record.data.get("dev")
    n = "" if dev is None else f"n = {dev.n:,} · "
    headline(figure, _on(record, "Learning curves"), f"{n}ring: the epoch kept")
    save(figure, path)


def _name_lines(figure: Figure, axes: Axes, ends: list[tuple[str, float, float]], chosen: dict[str, Look]) -> None:
    """Write method names right of the axes at the height where their line ends, moved apart."""
    low, high = axes.get_ylim()
    gap = (high - low) * 0.19 / (figure.get_size_inches()[1] - 1.4)
    right = axes.get_xlim()[1]
    for (name, x, y), level in zip(ends, spread([y for _, _, y in ends], gap), strict=True):
        colour = chosen[name].colour
        axes.annotate(
            name, (x, y), (right, level), textcoords="data", xycoords="data", size=10, color=colour,
            weight="bold", va="center", annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "lw": 0.7, "shrinkB": 6, "relpos": (0, 0.5)},
        )  # fmt: skip


def pareto(record: RunRecord, path: Path) -> None:
    """Write macro-F1 on the own test set against trainable parameters (log), with 95 % intervals.

    Methods that train nothing are a dashed line with a band; equal budgets are set side by side.
    Raises `ValueError` when no trained method was scored.
    """
    test = main_test(record)
    if test is None or not any(m.trainable for m in record.methods.values()):
        raise ValueError("a run without scores of a trained method has no budgets to draw")
    scores = {m: s for m in methods_in_order(record) if (s := interval_of(record, m, test, "macro_f1"))}
    trained = [name for name in scores if record.methods[name].trainable]
    figure = canvas(7.2, 4.6)
    axes = figure.subplots()
    dress(axes, grid="y")
    axes.set_xscale("log")
    budgets = [record.methods[name].trainable for name in trained]
    # Room for names left of the first and right of the last point, and always a power of ten to read.
    room = max(4.0, 1.8 * (max(budgets) / min(budgets)) ** 0.13)
    axes.set_xlim(min(budgets) / room, max(budgets) * room)
    places = _side_by_side(budgets, 0.018 * math.log10(max(budgets) / min(budgets) * room**2))
    for name, x in zip(trained, places, strict=True):
        look, s = looks(record)[name], scores[name]
        axes.plot([x, x], [100 * s.low, 100 * s.high], color=look.colour, linewidth=2.2, alpha=0.55)
        axes.plot(x, 100 * s.value, look.marker, color=look.colour, markersize=8)
    texts = _untrained(axes, record, {m: s for m, s in scores.items() if m not in trained})
    axes.margins(y=0.16)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: short(x)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("trainable parameters", size=9.5, color=INK)
    axes.set_ylabel(f"macro-F1 on {test} (%)", size=9.5, color=INK)
    n = max(s.n for s in scores.values())
    below = f"n = {n:,} · bar: 95 % interval over sentences · equal budgets are drawn side by side"
    headline(figure, _on(record, "Score against budget"), below)
    figure.draw_without_rendering()
    labels = [_point_label(record, name, x, scores[name]) for name, x in zip(trained, places, strict=True)]
    taken = [_bar_box(axes, label) for label in labels] + [text.get_window_extent() for text in texts]
    label_points(axes, labels, taken)
    save(figure, path)


def _point_label(record: RunRecord, name: str, x: float, score: Interval) -> PointLabel:
    text = f"{name} ({percent(record.methods[name].share)})"
    value, low, high = (100 * v for v in (score.value, score.low, score.high))
    return PointLabel(text, looks(record)[name].colour, x, value, low, high)


def _untrained(axes: Axes, record: RunRecord, scores: dict[str, Interval]) -> list[Annotation]:
    texts = []
    for name, score in scores.items():
        colour = looks(record)[name].colour
        axes.axhspan(100 * score.low, 100 * score.high, color=colour, alpha=0.1, linewidth=0)
        axes.axhline(100 * score.value, color=colour, linewidth=1.3, linestyle=(0, (5, 3)))
        written = axes.annotate(
            f"{name} (trains nothing)", (1, 100 * score.value), (-4, 3), textcoords="offset points",
            xycoords=("axes fraction", "data"), size=9, color=colour, ha="right", va="bottom",
        )  # fmt: skip
        texts.append(written)
    return texts


def _side_by_side(budgets: list[int], gap: float) -> list[float]:
    """The budgets with those closer than `gap` decades moved apart, so that their bars do not coincide."""
    return [float(10**place) for place in spread([math.log10(b) for b in budgets], gap)]


def _bar_box(axes: Axes, label: PointLabel) -> Bbox:
    ends = axes.transData.transform([(label.x, label.low), (label.x, label.high)])
    around = np.array([[-7.0, -3.0], [7.0, 3.0]]) * axes.figure.dpi / 72
    return Bbox(ends + around)


def _on(record: RunRecord, what: str) -> str:
    data = record.data["train"].name if "train" in record.data else record.experiment
    return f"{what}: {record.model.name} trained on {data}, seed {record.seed}"
