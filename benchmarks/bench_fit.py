"""Training an edit against training everything, here and as other tools do it: time, memory and counted FLOPs.

Every way trains in a process of its own, an epoch at a time, in turns; the first epoch, which fills what is cached, is
not counted. Same examples of the bundled sample, same batches, same optimiser. Memory is what a process needs above
the weights it has loaded.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from bench import OUT, draw_scaling, exponents
from fits import Job, gemm_rate
from meta import counted
from profiles import profiled
from rich.console import Console
from rich.table import Table

ROUNDS = 3
PROFILED = ("edit", "representation", "lora")
OVER = {"over_peft_lora_trainer": "peft_lora_trainer", "over_our_lora": "lora"}
"""Ratios to these ways, where they were run."""
SIZES: dict[str, Sequence[int]] = {"layers": (6, 12, 24), "tokens": (45, 90, 180), "examples": (64, 128, 256)}
"""What `--scaling` changes, one at a time."""


def measured(jobs: Sequence[Job], console: Console) -> dict[str, dict[str, float]]:
    """Median seconds of an epoch after the first, the most bytes above the weights, FLOPs where counted."""
    here = Path(__file__).with_name("fits.py")
    environment = {**os.environ, "OMP_NUM_THREADS": str(jobs[0].threads), "PYTHONWARNINGS": "ignore"}
    workers = {
        job.way: subprocess.Popen(
            [sys.executable, str(here), json.dumps(asdict(job))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment,
        )
        for job in jobs
    }  # fmt: skip
    laps: dict[str, list[dict[str, float]]] = {way: [] for way in workers}
    for turn in range(jobs[0].epochs):
        for way, worker in workers.items():
            laps[way].append(_lap(way, worker))
        console.print(f"epoch {turn + 1} of {jobs[0].epochs}")
    results = {}
    for way, worker in workers.items():
        rest, _ = worker.communicate("\n")
        counted = [json.loads(line) for line in rest.splitlines() if line.startswith('{"flops"')]
        results[way] = {
            "seconds": statistics.median(lap["seconds"] for lap in laps[way][1:]),
            "first_seconds": laps[way][0]["seconds"],
            "bytes": max(lap["bytes"] for lap in laps[way]),
            **(counted[0] if counted else {}),
        }
    return results


def _lap(way: str, worker: subprocess.Popen[str]) -> dict[str, float]:
    """One epoch of a worker."""
    assert worker.stdin and worker.stdout
    worker.stdin.write("\n")
    worker.stdin.flush()
    for line in worker.stdout:
        if line.startswith('{"seconds"'):
            return json.loads(line)
    raise RuntimeError(f"{way}: training ended early; run benchmarks/fits.py with the same job to see why")


def compared(model: str, arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    """All ways on one model."""
    jobs = [
        Job(way, model, examples=arguments.examples, epochs=ROUNDS + 1, precision=arguments.precision,
            softmax=arguments.softmax, threads=arguments.threads)
        for way in arguments.ways
    ]  # fmt: skip
    ways = measured(jobs, console)
    rate = gemm_rate(arguments.precision)
    for measures in ways.values():
        if "flops" in measures:
            measures["seconds_over_floor"] = measures["seconds"] * rate / measures["flops"]
    return {
        "ways": ways,
        "profile": {job.way: profiled(replace(job, epochs=2)) for job in jobs if job.way in PROFILED},
        **{name: _over(ways, other) for name, other in OVER.items() if other in ways},
        "gemm_flops_per_second": rate,
    }


def _over(ways: dict[str, dict[str, float]], other: str) -> dict[str, dict[str, float]]:
    """Throughput and memory of each way as ratios to those of another."""
    return {
        way: {
            "throughput": ways[other]["seconds"] / measures["seconds"],
            "memory": measures["bytes"] / ways[other]["bytes"],
        }
        for way, measures in ways.items()
    }


def show(model: str, result: dict[str, Any], console: Console) -> None:
    """The table of one model."""
    table = Table(f"{model}: way", "s / epoch", "first", "MB above weights", "x LoRA in Trainer", "memory", "s / floor")
    for way, measures in result["ways"].items():
        over = result["over_peft_lora_trainer"][way] if "over_peft_lora_trainer" in result else {}
        floor = f"{measures['seconds_over_floor']:.2f}" if "flops" in measures else ""
        table.add_row(
            way, f"{measures['seconds']:.2f}", f"{measures['first_seconds']:.2f}", f"{measures['bytes'] / 1e6:.0f}",
            *(f"{over[what]:.2f}" if over else "" for what in ("throughput", "memory")), floor,
        )  # fmt: skip
    console.print(table)
    if not result["profile"]:
        return
    kinds = list(next(iter(result["profile"].values())))[:-1]
    shares = Table("share of the time", *kinds)
    for way, profile in result["profile"].items():
        shares.add_row(way, *(f"{profile[kind]:.2f}" for kind in kinds))
    console.print(shares)


def scaling(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Seconds of an epoch of `edit` and `lora` as one of the sizes changes, and the exponents."""
    results: dict[str, Any] = {}
    for axis, sizes in SIZES.items():
        rows = []
        for size in sizes:
            changed = {"examples": arguments.examples, axis: size}
            jobs = [
                Job(way, epochs=3, precision=arguments.precision, threads=arguments.threads, **changed)
                for way in ("edit", "lora", "peft_lora_trainer")
            ]
            rows.append({axis: size, **{way: measures["seconds"] for way, measures in measured(jobs, console).items()}})
            console.print(rows[-1])
        results[axis] = {"rows": rows, "exponents": exponents(rows, axis)}
    return results


def main(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    """The figures of `outputs/bench/fit.json`, also shown."""
    chosen = ("precision", "examples", "softmax")
    result: dict[str, Any] = {what: getattr(arguments, what) for what in chosen}
    for model in arguments.models:
        result[model] = compared(model, arguments, console)
        show(model, result[model], console)
    result["over_peft_lora_trainer"] = result[arguments.models[0]].get("over_peft_lora_trainer")
    if arguments.meta:
        result["meta_7b"] = counted()
        console.print_json(data=result["meta_7b"])
    if arguments.scaling:
        result["scaling"] = scaling(arguments, console)
        draw_scaling(result["scaling"], "seconds an epoch", OUT / "figures" / "fit_scaling.png")
    return result
