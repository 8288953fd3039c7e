"""How records look in a notebook: small HTML tables, made without any library and readable in light and dark."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from absa_edit.records import EditPlan, Trace
    from absa_edit.results import Interval, Score

UP, DOWN = (0, 114, 178), (213, 94, 0)  # Okabe and Ito's blue and vermillion


def trace_html(trace: Trace) -> str:
    """The average indirect effects in points, a table a part: roles down, layers across; the plainest heat map."""
    mean = 100 * mean_effects(trace)
    largest = float(np.nanmax(np.abs(mean), initial=1e-9))
    head = ["", *map(str, range(trace.layers))]
    tables = []
    for part, effects in zip(trace.parts, mean, strict=True):
        rows = zip(trace.roles, effects, strict=True)
        tables.append(table(part.value, head, ([role.value, *(_shade(v, largest) for v in row)] for role, row in rows)))
    return f"<p>{escape(trace_line(trace))}; effects in points of p(gold)</p>" + "".join(tables)


def plan_html(plan: EditPlan) -> str:
    """The ranks of the edited sites: parts down, layers across."""
    ranks = {(str(t.site.part.value), t.site.index, t.site.layer): t.rank for t in plan.targets}
    rows = sorted({key[:2] for key in ranks}, key=lambda row: (row[0], -1 if row[1] is None else row[1]))
    layers = range(max(plan.layers(), default=0) + 1)
    body = (
        [part if index is None else f"{part} {index}"]
        + [_filled(ranks[part, index, i]) if (part, index, i) in ranks else "" for i in layers]
        for part, index in rows
    )
    return f"<p>{escape(plan_line(plan))}</p>" + table("rank", ["", *map(str, layers)], body)


def score_html(score: Score) -> str:
    """Accuracy and macro-F1 with their intervals, F1 of each class, and the confusion."""
    labels = list(score.f1)
    first = table(
        "percent", ["", "value", "95 %"], [_interval("accuracy", score.accuracy), _interval("macro-F1", score.macro_f1)]
    )
    counts = (
        [gold, *map(str, row), f"{100 * score.f1[gold]:.1f}"]
        for gold, row in zip(labels, score.confusion, strict=False)
    )
    return first + table(f"gold down, predicted across, n = {score.accuracy.n}", ["", *labels, "F1"], counts)


def trace_line(trace: Trace) -> str:
    """The trace in one line: what was done, to how many, and its strongest cell."""
    c = trace.counts
    text = f"Trace({trace.engine}, {trace.corruption} on {trace.corrupted_tokens}, {c.kept} of {c.seen} examples"
    if not trace.parts:
        return text + ")"
    mean = mean_effects(trace)
    part, role, layer = np.unravel_index(np.nanargmax(mean), mean.shape)
    where = f"{trace.parts[part].value}@{layer} at {trace.roles[role].value}"
    return f"{text}, peak {where} {100 * mean[part, role, layer]:+.1f} points)"


def plan_line(plan: EditPlan) -> str:
    """The plan in one line: its source, sites and budget."""
    parts = "+".join(sorted({t.site.part.value for t in plan.targets}))
    layers = ",".join(map(str, plan.layers()))
    steady = "" if plan.stability is None else f", stability {plan.stability:.2f}"
    return f"EditPlan({plan.source}: {parts} of layers {layers}, {plan.parameters:,} parameters{steady})"


def mean_effects(trace: Trace) -> np.ndarray:
    """Average indirect effect by part, role and layer; nan for roles that no example has."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Mean of empty slice", RuntimeWarning)
        return np.nanmean(trace.restored - trace.corrupted[:, None, None, None], axis=0)


def table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """An HTML table; cells that begin with `<td` are taken as they are, all others are escaped."""
    lines = ["".join(f"<th>{escape(cell)}</th>" for cell in head)]
    lines += ["".join(c if c.startswith("<td") else f"<td>{escape(c)}</td>" for c in row) for row in rows]
    return f"<table><caption>{escape(caption)}</caption>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def _shade(value: float, largest: float) -> str:
    if np.isnan(value):
        return ""
    red, green, blue = UP if value > 0 else DOWN
    return f'<td style="background:rgba({red},{green},{blue},{0.8 * abs(value) / largest:.2f})">{value:.0f}</td>'


def _filled(rank: int) -> str:
    return f'<td style="background:rgba({",".join(map(str, UP))},0.5)">{rank}</td>'


def _interval(name: str, interval: Interval) -> list[str]:
    return [name, f"{100 * interval.value:.1f}", f"{100 * interval.low:.1f} to {100 * interval.high:.1f}"]
