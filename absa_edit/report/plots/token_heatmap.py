"""One example's trace as a heat map: tokens down, layers across."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.colors import Normalize

from absa_edit.records import Role, TokenGrid
from absa_edit.report.plots.heatmap import PARTS
from absa_edit.report.plots.style import INK, MUTED, canvas, headline, save

CELL = 0.19  # inches


def token_heatmap(grid: TokenGrid, path: Path, *, model: str) -> None:
    """Write what restoring each token in each layer brings back, in points of p(gold), one panel a part.

    Tokens of the aspect are bold. Those before the first corrupted one are left out: they bring nothing back.
    """
    effects = grid.restored - grid.corrupted  # part pos layer
    shown = np.flatnonzero(np.abs(effects).max((0, 2)).cumsum() > 0)
    shown = shown if shown.size else np.arange(len(grid.tokens))  # nothing at all was corrupted
    percent = 100 * effects[:, shown]
    parts, rows, layers = percent.shape
    figure = canvas(parts * (layers * CELL + 0.25) + 2.6, rows * CELL + 1.2)
    panels = figure.subplots(1, parts, squeeze=False, sharey=True)[0]
    largest = float(np.abs(percent).max(initial=1e-9))
    colours = matplotlib.cm.ScalarMappable(Normalize(-largest, largest), matplotlib.colormaps["RdBu"])
    for axes, part, values in zip(panels, grid.parts, percent, strict=True):
        axes.imshow(values, cmap=colours.cmap, norm=colours.norm, aspect="auto")
        axes.set_title(PARTS[part], size=10.5, weight="bold", color=INK, loc="left")
        axes.set_xlabel("layer", size=9.5, color=INK)
        axes.set_yticks(range(rows), [grid.tokens[i].replace("$", r"\$") for i in shown], size=8.5, color=INK)
        axes.tick_params(length=0, labelsize=8.5, colors=INK)
        axes.spines[:].set_visible(False)
    bold = [grid.roles[i] in (Role.aspect, Role.aspect_again) for i in shown]
    for text, heavy in zip(panels[0].get_yticklabels(), bold, strict=True):
        text.set_weight("bold" if heavy else "normal")
    bar = figure.colorbar(colours, ax=list(panels), fraction=0.035, pad=0.015, aspect=28)
    bar.set_label("points of p(gold) brought back", size=9, color=INK)
    bar.ax.tick_params(labelsize=8.5, colors=INK, length=2, color=MUTED)
    bar.outline.set_visible(False)
    headline(
        figure,
        f"Causal trace of {model}, example {grid.id}",
        f"p(gold) is {100 * grid.clean:.0f} % clean and {100 * grid.corrupted:.0f} % corrupted"
        + " · aspect in bold" * any(bold),
    )
    save(figure, path)
