"""The trace as the page draws it: averaged maps by part, and the maps of a few single examples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from absa_edit.records import Dataset, EditPlan, Example, Part, TokenGrid, Trace
from absa_edit.report.formatting import ROLES
from absa_edit.report.plots.heatmap import PARTS
from absa_edit.tracing.effects import Effects, indirect_effects

Json = dict[str, Any]
CHOSEN = 6
"""Single examples shown."""


def average_maps(effects: Effects, heads: Effects | None, plan: EditPlan | None) -> list[Json]:
    """One map a part: rows by layer with intervals in points, and the cells that the plan edits.

    A part has one view, but for heads: one a role, with a row a head.
    """
    rows = [{"name": ROLES[role], "n": int(n)} for role, n in zip(effects.roles, effects.n, strict=True)]
    largest = _largest(effects.aie)
    maps = [
        _map(part, largest, plan, [{"name": "", "rows": rows} | _cells(effects, (i,))])
        for i, part in enumerate(effects.parts)
    ]
    if heads is not None:
        order = np.argsort(-np.nanmax(heads.aie, axis=(0, 2), initial=-np.inf), kind="stable")
        views = [
            {
                "name": ROLES[heads.roles[j]],
                "rows": [{"name": f"head {i}", "n": int(heads.n[j])} for i in range(len(heads.parts))],
            }
            | _cells(heads, (slice(None), j))
            for j in order
        ]
        maps.append(_map(Part.head, _largest(heads.aie), plan, views))
    return maps


def example_maps(trace: Trace, train: Dataset) -> list[Json]:
    """The maps of a few traced examples, evenly spaced from the smallest to the largest total effect."""
    order = np.argsort(trace.clean - trace.corrupted, kind="stable")
    picked = order[np.unique(np.linspace(0, len(order) - 1, CHOSEN).round().astype(int))]
    known = {example.id: example for example in train.examples}
    effects = indirect_effects(trace)
    rows = [ROLES[role] for role in trace.roles]
    return [
        example_map(
            known[trace.example_ids[i]], float(trace.clean[i]), float(trace.corrupted[i]), trace.parts, rows, effects[i]
        )
        for i in picked
    ]


def token_maps(grids: Sequence[TokenGrid], train: Dataset) -> list[Json]:
    """The maps of examples that were traced token by token, from the first token that was corrupted on."""
    known = {example.id: example for example in train.examples}
    found = []
    for grid in grids:
        effects = grid.restored.astype(float) - grid.corrupted
        effects[:, np.abs(effects).max((0, 2)).cumsum() == 0] = np.nan
        found.append(example_map(known[grid.id], grid.clean, grid.corrupted, grid.parts, grid.tokens, effects))
    return found


def chosen(tokens: int, shown: int, trace: Trace) -> str:
    """Which examples `token_maps` and `example_maps` show, in a sentence."""
    by_token = f"{tokens} token by token; " if tokens else ""
    return (
        f"{by_token}{shown} of the {len(trace.example_ids):,} traced examples, evenly spaced from the smallest to the "
        "largest total effect; an average hides how much they differ."
    )


def example_map(
    example: Example,
    clean: float,
    corrupted: float,
    parts: Sequence[Part],
    rows: Sequence[str],
    effects: Float[np.ndarray, "part row layer"],
) -> Json:
    """The map of one example; `rows` name what was restored: roles, or the tokens themselves.

    Rows that the example lacks (nan) are left out.
    """
    has = ~np.isnan(effects).all(axis=(0, 2))
    named = [{"name": name} for name, there in zip(rows, has, strict=True) if there]
    shown = effects[:, has]
    return {
        "text": example.text,
        "start": example.start,
        "end": example.end,
        "gold": example.label,
        "clean": round(100 * clean, 1),
        "corrupted": round(100 * corrupted, 1),
        "maps": [
            _map(part, _largest(shown), None, [{"name": "", "rows": named, "effect": points(shown[i])}])
            for i, part in enumerate(parts)
        ],
    }


def points(shares: np.ndarray) -> Any:
    """Nested lists of percentage points with one decimal; None where there is no value."""
    rounded = np.round(100 * shares, 1) + 0.0  # no negative zeros
    cells = rounded.astype(object)
    cells[np.isnan(rounded)] = None
    return cells.tolist()


def _map(part: Part, largest: float, plan: EditPlan | None, views: list[Json]) -> Json:
    targets = () if plan is None else [t.site for t in plan.targets if t.site.part is part]
    planned = sorted({(-1 if site.index is None else site.index, site.layer) for site in targets})
    layers = [] if plan is None else list(plan.layers())
    named = {"part": part.value, "name": PARTS[part], "largest": largest}
    return named | {"planned": planned, "layers": layers, "views": views}


def _cells(effects: Effects, at: tuple[Any, ...]) -> Json:
    low, high = effects.low[at], effects.high[at]
    unsure = ((low <= 0) & (high >= 0)).tolist()  # of the intervals before they are rounded
    return {"effect": points(effects.aie[at]), "low": points(low), "high": points(high), "unsure": unsure}


def _largest(shares: np.ndarray) -> float:
    """The end of the colour scale in points: the largest effect of either sign."""
    return max(round(100 * float(np.nanmax(np.abs(shares), initial=0.0)), 1), 0.1)
