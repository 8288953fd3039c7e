"""Estimated traces against the exact engine: how much faster, how near, and whether the plan is the same.

`reviewlm` on a seeded draw of training examples, as `train.py` draws it. Each engine runs its whole trace twice but
exact once, in an order that a machine's drift cancels in.
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

import absa_edit
from absa_edit.config import LocateSettings, Shape
from absa_edit.locate.by_trace import choices
from absa_edit.records import Dataset, Part, Trace
from absa_edit.trace.agreement import agreement

PARTS = {"block, attn, mlp": [Part.block, Part.attn, Part.mlp], "heads too": list(Part)}
TURNS = ("attribution", "auto", "exact", "auto", "attribution")
DRAWS = 1000


def same_plan(exact: Trace, other: Trace, model: absa_edit.Model, shape: Shape) -> float:
    """Share of resamples of the sentences in which both traces choose the same sites."""
    settings, rng = LocateSettings(shape=shape), np.random.default_rng
    pairs = [choices(trace, model.lm.model, settings, draws=DRAWS, rng=rng(0))[1:] for trace in (exact, other)]
    return statistics.mean(a == b for a, b in zip(*pairs, strict=True))


def compared(model: absa_edit.Model, data: Dataset, parts: list[Part], examples: int, samples: int) -> dict[str, Any]:
    """By engine the seconds, and how the estimates agree with the exact engine on all kept examples."""
    model.trace(data, examples=4, parts=parts, engine="attribution", filter=False)  # warms up
    seconds: dict[str, list[float]] = {}
    traces: dict[str, Trace] = {}
    for engine in TURNS:
        began = time.perf_counter()
        traces[engine] = model.trace(data, examples=examples, samples=samples, parts=parts, engine=engine)
        seconds.setdefault(engine, []).append(time.perf_counter() - began)
    counts = {engine: asdict(trace.counts) for engine, trace in traces.items()}
    shared = set.intersection(*(set(trace.example_ids) for trace in traces.values()))  # bfloat16 may move the filter
    traces = {engine: trace.of(shared) for engine, trace in traces.items()}
    exact, found = traces.pop("exact"), {engine: statistics.mean(took) for engine, took in seconds.items()}
    return {
        "counts": counts,
        "compared": len(shared),
        "seconds": found,
        "times_faster": {engine: found["exact"] / found[engine] for engine in traces},
        "agreement": {
            engine: asdict(compared)
            for engine, trace in traces.items()
            if (compared := agreement(exact, trace, draws=DRAWS, rng=np.random.default_rng(0)))
        },
        "same_plan": {
            engine: {shape.value: same_plan(exact, trace, model, shape) for shape in Shape}
            for engine, trace in traces.items()
        },
        "cells_run": len(traces["auto"].exact_cells),
    }


def show(found: dict[str, Any], parts: str, console: Console) -> None:
    table = Table(f"{parts}: {found['compared']} kept", "seconds", "times faster", "rank", "top", "same plan")
    for engine, took in found["seconds"].items():
        if engine == "exact":
            table.add_row(engine, f"{took:.1f}")
            continue
        trust = found["agreement"].get(engine, {})  # nothing where no cells differ
        near = [trust[key] for key in ("rank_correlation", "overlap") if trust]
        table.add_row(
            engine,
            f"{took:.1f}",
            f"{found['times_faster'][engine]:.1f}",
            *([f"{one['value']:.3f} [{one['low']:.3f}, {one['high']:.3f}]" for one in near] or ["-", "-"]),
            ", ".join(f"{shape} {share:.3f}" for shape, share in found["same_plan"][engine].items()),
        )
    console.print(table)


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
