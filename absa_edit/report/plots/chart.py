"""The chart of an analysis: lines, each with the band of its intervals."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from absa_edit.report.plots.style import COLOURS, FOCUS, INK, MARKERS, UNTRAINED, Look, canvas, dress, headline, save
from absa_edit.table import Chart

LOOKS = (FOCUS, *map(Look, COLOURS, MARKERS), UNTRAINED)
NAMED = 6
"""More lines than this have their legend in two columns."""


def chart_png(title: str, chart: Chart, path: Path) -> None:
    """Write the chart as PNG."""
    save(_drawn(title, chart), path)


def chart_svg(title: str, chart: Chart) -> bytes:
    """The chart as SVG; the same chart gives the same bytes."""
    written = BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "absa_edit"}):
        _drawn(title, chart).savefig(written, format="svg", metadata={"Date": None, "Creator": None})
    return written.getvalue()


def _drawn(title: str, chart: Chart) -> Figure:
    figure = canvas(7.2, 4.4)
    axes = figure.subplots()
    dress(axes, grid="y")
    for i, (name, line) in enumerate(chart.lines.items()):
        look, points = LOOKS[i % len(LOOKS)], sorted(line, key=lambda point: point.x)
        x, y = [p.x for p in points], [p.y for p in points]
        axes.fill_between(x, [p.low for p in points], [p.high for p in points], color=look.colour, alpha=0.15, lw=0)
        axes.plot(x, y, f"{look.marker}-", color=look.colour, linewidth=1.8, markersize=5, label=name)
    if all(float(p.x).is_integer() for line in chart.lines.values() for p in line):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlabel(chart.x, size=9.5, color=INK)
    axes.set_ylabel(chart.y, size=9.5, color=INK)
    if len(chart.lines) > 1:
        axes.legend(frameon=False, fontsize=9, labelcolor=INK, ncols=1 + (len(chart.lines) > NAMED))
    banded = any(p.low < p.high for line in chart.lines.values() for p in line)
    headline(figure, title, "band: interval around the line" if banded else "")
    return figure
