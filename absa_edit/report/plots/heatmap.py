"""The averaged trace as heat maps: how much of the answer each part, layer and role gives back."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from absa_edit.records import EditPlan, Part
from absa_edit.report.formatting import MINUS, ROLES, runs
from absa_edit.report.plots.style import INK, MUTED, canvas, headline, save
from absa_edit.results import TraceSummary
from absa_edit.tracing.effects import Effects
from absa_edit.tracing.settings import Engine

CELL = 0.31  # inches; fits two digits
DEEP = 16  # more layers than this are stacked, not set side by side
NUMBERED = 64  # with more layers the cells are too narrow for their values
PARTS = {Part.block: "block", Part.attn: "attention", Part.mlp: "MLP", Part.head: "heads"}


def trace_heatmap(
    effects: Effects,
    path: Path,
    *,
    model: str,
    data: str,
    plan: EditPlan | None = None,
    trace: TraceSummary | None = None,
) -> None:
    """Write the average indirect effect by layer (across) and role (down), one panel a part.

    Cells are in percentage points of p(gold), pale where the 95 % interval includes 0; the layers that
    `plan` edits are framed on the panels of their part. More than sixteen layers are stacked.
    """
    percent = 100 * effects.aie
    layers, side_by_side = percent.shape[-1], percent.shape[-1] <= DEEP
    figure, panels = _grid(len(effects.parts), len(effects.roles), layers, side_by_side)
    colours, norm = _colours(percent)
    for i, (axes, part) in enumerate(zip(panels, effects.parts, strict=True)):
        sure = (effects.low[i] > 0) | (effects.high[i] < 0)
        _panel(axes, percent[i], sure, colours, norm)
        axes.set_title(PARTS[part], size=10.5, weight="bold", color=INK, loc="left", pad=6)
        if not side_by_side or i == 0:
            axes.set_yticks(range(len(effects.roles)), _role_names(effects), size=9.5, color=INK)
        if side_by_side or i == len(effects.parts) - 1:
            axes.set_xlabel("layer", size=9.5, color=INK)
        if plan is not None:
            _frame(axes, plan, part, len(effects.roles))
    _colour_bar(figure, panels, percent, colours, norm)
    headline(
        figure,
        f"Causal trace of {model} on {data} (n = {effects.total.n})",
        _subtitle(effects, plan, trace),
    )
    save(figure, path)


def _grid(parts: int, roles: int, layers: int, side_by_side: bool) -> tuple[Figure, list[Axes]]:
    wide = layers * (CELL if layers <= NUMBERED else 0.16)
    high = roles * CELL
    if side_by_side:
        figure = canvas(max(parts * (wide + 0.2) + 2.6, 7.0), high + 1.55)
        grid = figure.subplots(1, parts, squeeze=False, sharey=True)
    else:
        figure = canvas(max(wide + 2.8, 8.0), parts * (high + 0.55) + 1.2)
        grid = figure.subplots(parts, 1, squeeze=False, sharex=True)
    return figure, list(grid.flat)


def _colours(percent: Float[np.ndarray, "part role layer"]) -> tuple[Colormap, Normalize]:
    """A diverging map that is white at 0 always, so that the sign never depends on the range."""
    largest = max(float(np.nanmax(np.abs(percent), initial=0.0)), 1e-9)
    return matplotlib.colormaps["RdBu"].with_extremes(bad="#EEEEEE"), Normalize(-largest, largest)


def _panel(
    axes: Axes,
    percent: Float[np.ndarray, "role layer"],
    sure: np.ndarray,
    colours: Colormap,
    norm: Normalize,
) -> None:
    roles, layers = percent.shape
    axes.imshow(
        np.ma.masked_invalid(percent),
        cmap=colours,
        norm=norm,
        aspect="equal" if layers <= NUMBERED else "auto",
    )
    axes.set_xticks(range(layers) if layers <= NUMBERED else range(0, layers, 5))
    axes.tick_params(length=0, labelsize=8.5, colors=INK)
    axes.spines[:].set_visible(False)
    axes.set_xticks(np.arange(layers + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(roles + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=0.9)
    axes.tick_params(which="minor", length=0)
    if layers > NUMBERED:
        return
    small = norm.vmax is not None and norm.vmax < 9.5
    for (role, layer), value in np.ndenumerate(percent):
        if np.isnan(value):
            continue
        dark = abs(float(norm(value)) - 0.5) > 0.32
        ink = ("white" if dark else INK) if sure[role, layer] else ("#D0D0D0" if dark else "#8A8A8A")
        axes.text(layer, role, _cell(float(value), small), ha="center", va="center", size=7.5, color=ink)


def _cell(value: float, small: bool) -> str:
    """A value that fits a cell: one digit after the point below ten, without the leading zero."""
    text = f"{value:.1f}" if small else f"{value:.0f}"
    text = text.replace("-0.", "-.") if text.startswith("-0.") else text.removeprefix("0") or "0"
    return {"-0": "0", "-.0": "0", ".0": "0"}.get(text, text).replace("-", MINUS)


def _role_names(effects: Effects) -> list[str]:
    """Role names, with their own number of examples where not every example has the role."""
    most = int(effects.n.max(initial=0))
    return [
        ROLES[role] if int(n) == most else f"{ROLES[role]} (n={int(n)})"
        for role, n in zip(effects.roles, effects.n, strict=True)
    ]


def _frame(axes: Axes, plan: EditPlan, part: Part, roles: int) -> None:
    layers = tuple(sorted({t.site.layer for t in plan.targets if t.site.part is part}))
    for run in filter(None, runs(layers).split(", ")):
        first, _, last = run.partition("-")
        start, stop = int(first), int(last or first)
        box = Rectangle((start - 0.5, -0.5), stop - start + 1, roles, fill=False, edgecolor="#D55E00")
        box.set(linewidth=2.2, clip_on=False, zorder=5)
        axes.add_patch(box)


def _colour_bar(figure: Figure, panels: list[Axes], percent: np.ndarray, colours: Colormap, norm: Normalize) -> None:
    source = matplotlib.cm.ScalarMappable(norm, colours)
    bar = figure.colorbar(source, ax=panels, fraction=0.035, pad=0.015, aspect=28, shrink=0.92)
    low, high = float(np.nanmin(percent, initial=0.0)), float(np.nanmax(percent, initial=0.0))
    bar.ax.set_ylim(min(low, 0.0), max(high, 1e-9))  # show only the colours that occur
    bar.set_label("average indirect effect\nin points of p(gold)", size=9, color=INK)
    bar.ax.tick_params(labelsize=8.5, colors=INK, length=2, color=MUTED)
    bar.outline.set_visible(False)


def _subtitle(effects: Effects, plan: EditPlan | None, trace: TraceSummary | None) -> str:
    notes = []
    if trace is not None:
        passed = "kept, not filtered" if trace.counts.unfiltered else "pass the filter"
        notes.append(f"{trace.counts.kept} of {trace.counts.seen} examined examples {passed}")
        if trace.engine != Engine.exact:
            some = "" if trace.cells_run is None else f" but for {trace.cells_run} cells"
            notes.append(f"effects estimated (engine {trace.engine}){some}")
    notes.append(f"corruption takes {effects.total.percent()} points of p(gold), a restored state brings some back")
    if effects.aie.shape[-1] <= NUMBERED:
        notes.append("grey figures: the 95 % interval includes 0")
    if trace is not None and trace.window > 1 and {Part.attn, Part.mlp} & set(effects.parts):
        notes.append(f"attention and MLP: {trace.window} layers restored together")
    if plan is not None and {target.site.part for target in plan.targets} & set(effects.parts):
        notes.append(f"orange frame: where the plan ({plan.source}) edits")
    return " · ".join(notes)
