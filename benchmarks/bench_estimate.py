"""Approximate traces against the exact engine: how much faster, how near, and whether the plan is the same.

`reviewlm` on a seeded draw of training examples, as `train.py` draws it. Estimates run their whole trace twice, before
and after the exact engine, so that a machine's drift cancels. Then, without heads, the exact engine runs in bfloat16,
where the machine has units for it.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import asdict
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr

import absa_edit
from absa_edit.localizers.base import choices
from absa_edit.localizers.causal_trace import traced_scores
from absa_edit.localizers.settings import LocateSettings, Shape
from absa_edit.model.precision import has_bfloat16_units
from absa_edit.records import Dataset, Part, Trace
from absa_edit.resampling import weighted_means
from absa_edit.tracing.effects import indirect_effects
from absa_edit.tracing.fidelity import agreement

PARTS = {"block, attn, mlp": [Part.block, Part.attn, Part.mlp], "heads too": list(Part)}
ENGINES: dict[str, dict[str, Any]] = {
    "attribution": {"engine": "attribution"},
    "auto": {"engine": "auto"},
    "exact": {"engine": "exact"},
    "bfloat16": {"engine": "exact", "dtype": "bfloat16"},
}
TURNS = ("attribution", "auto", "exact", "auto", "attribution", "bfloat16")
DRAWS = 1000
LARGE = 0.005
"""Average effect of a cell, in probability, from which on it is called large."""


def same_plan(exact: Trace, other: Trace, model: absa_edit.Model, shape: Shape) -> float:
    """Share of resamples of the sentences in which both traces choose the same sites."""
    settings, rng = LocateSettings(shape=shape), np.random.default_rng
    pairs = [
        choices(model.lm.runner, traced_scores(trace, settings.parts), settings, draws=DRAWS, rng=rng(0))[1:]
        for trace in (exact, other)
    ]
    return statistics.mean(a == b for a, b in zip(*pairs, strict=True))


def cells_apart(exact: Trace, other: Trace) -> dict[str, float | None]:
    """Rank correlations of the average effects over the large cells alone and over the others, and of two halves of the
    exact trace's sentences; None where there are too few.
    """
    sentences = np.unique(exact.sentence_ids, return_inverse=True)[1]
    tables = [indirect_effects(trace) for trace in (exact, other)]
    a, b = (weighted_means(np.ones((1, len(sentences))), table).ravel() for table in tables)
    halves = weighted_means(np.eye(2)[:, sentences % 2], tables[0]).reshape(2, -1)
    known, large = ~np.isnan(a), np.abs(a) >= LARGE

    def rank(x: np.ndarray, y: np.ndarray) -> float | None:
        return float(spearmanr(x, y, nan_policy="omit").statistic) if len(x) > 2 else None

    return {
        "cells": int(known.sum()),
        "large": int((known & large).sum()),
        "rank_of_large": rank(a[known & large], b[known & large]),
        "rank_of_others": rank(a[known & ~large], b[known & ~large]),
        "rank_of_exact_halves": rank(*halves[:, known]),
    }


def compared(model: absa_edit.Model, data: Dataset, parts: list[Part], examples: int, samples: int) -> dict[str, Any]:
    """By engine the seconds, and how the estimates agree with the exact engine on all kept examples."""
    model.trace(data, examples=4, parts=parts, engine="attribution", filter=False)  # warms up
    seconds: dict[str, list[float]] = {}
    traces: dict[str, Trace] = {}
    with_bfloat16 = Part.head not in parts and has_bfloat16_units(model.lm.model.device)
    for engine in TURNS if with_bfloat16 else TURNS[:-1]:
        began = time.perf_counter()
        traces[engine] = model.trace(data, examples=examples, samples=samples, parts=parts, **ENGINES[engine])
        seconds.setdefault(engine, []).append(time.perf_counter() - began)
    counts = {engine: asdict(trace.counts) for engine, trace in traces.items()}
    shared = set.intersection(*(set(trace.example_ids) for trace in traces.values()))  # bfloat16 may move the filter
    traces = {engine: trace.of(shared) for engine, trace in traces.items()}
    exact, mean_seconds = traces.pop("exact"), {engine: statistics.mean(took) for engine, took in seconds.items()}
    return {
        "counts": counts,
        "compared": len(shared),
        "seconds": mean_seconds,
        "times_faster": {engine: mean_seconds["exact"] / mean_seconds[engine] for engine in traces},
        "agreement": {
            engine: asdict(compared)
            for engine, trace in traces.items()
            if (compared := agreement(exact, trace, draws=DRAWS, rng=np.random.default_rng(0)))
        },
        "same_plan": {
            engine: {shape.value: same_plan(exact, trace, model, shape) for shape in Shape}
            for engine, trace in traces.items()
        },
        "cells_apart": cells_apart(exact, traces["attribution"]),
        "cells_run": len(traces["auto"].exact_cells),
    }


def show(result: dict[str, Any], parts: str, console: Console) -> None:
    table = Table(f"{parts}: {result['compared']} kept", "seconds", "times faster", "rank", "top", "same plan")
    for engine, took in result["seconds"].items():
        if engine == "exact":
            table.add_row(engine, f"{took:.1f}")
            continue
        trust = result["agreement"].get(engine, {})  # nothing where no cells differ
        near = [trust[key] for key in ("rank_correlation", "overlap") if trust]
        table.add_row(
            engine,
            f"{took:.1f}",
            f"{result['times_faster'][engine]:.1f}",
            *(
                [f"{interval['value']:.3f} [{interval['low']:.3f}, {interval['high']:.3f}]" for interval in near]
                or ["-", "-"]
            ),
            ", ".join(f"{shape} {share:.3f}" for shape, share in result["same_plan"][engine].items()),
        )
    console.print(table)
    console.print(f"attribution without heads, by cells of {100 * LARGE:.1f} points of effect: {result['cells_apart']}")


def main(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    """The figures of `outputs/bench/estimate.json`, also shown."""
    model, data = absa_edit.Model("reviewlm", device="cpu"), absa_edit.read(arguments.data, tests=[])
    for notice in data.notices:
        console.print(notice)
    result: dict[str, Any] = {"data": data.train.name, "samples": arguments.samples}
    for name, parts in PARTS.items():
        result[name] = compared(model, data.train, parts, arguments.examples, arguments.samples)
        show(result[name], f"{data.train.name}, {name}", console)
    return result
