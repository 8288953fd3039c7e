"""The exact tracer against other tools and against the FLOPs that no exact tracer can do without.

Other tools than the plain loops need `pip install -e ".[bench]"`. A tool's cells cost the same each, so its grid is
the median cost of a few cells times their number. The exact tracer runs whole grids: three times, between two
measurements of the others, and the heads' once. Random weights.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from bench import OUT, draw_scaling, exponents
from fits import Job, prompts_of
from meta import SHAPE_7B, model_7b
from peers import Measure, Workload, available
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr
from shapes import random_model
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, PreTrainedConfig

from absa_edit.model.block_runner import BlockRunner
from absa_edit.model.onednn_linear import OneDNN
from absa_edit.records import Part, Role
from absa_edit.tracing.clean_and_corrupted import clean_and_corrupted
from absa_edit.tracing.exact_patching import cells
from absa_edit.tracing.memory_budget import MemoryBudget
from absa_edit.tracing.restoration import Answer, restore
from absa_edit.tracing.settings import TraceSettings

GRIDS = {
    "block": (Part.block,),
    "attn": (Part.attn,),
    "mlp": (Part.mlp,),
    "all": (Part.block, Part.attn, Part.mlp),
}
HEADS = (Part.head,)
PEERS = ("transformer_lens", "nnsight", "pyvene", "rome")
"""What the ratio is taken over: the fastest of these. The plain hook loop is nobody's tool."""
WINDOW = 5
SAMPLES = 10
VOCABULARY = 32_000
SAMPLED = 4
"""Cells that a tool is timed on, a part and round."""
STANDARD = {"layers": 12, "tokens": 42, "samples": 3}
SIZES = {"layers": (4, 8, 16, 24), "tokens": (12, 24, 48, 96, 200), "samples": (1, 3, 10)}
"""What `--scaling` changes, one at a time."""


def workload(layers: int | None, length: int, samples: int = SAMPLES, shape: str = "llama") -> Workload:
    """A random model (layers: by itself the shape's own) and a prompt whose tokens at 36 % of it are corrupted.

    Weights are scaled so that noise moves the answer: with tiny probabilities every comparison would hold.
    """
    changed = {} if layers is None else {"num_hidden_layers": layers}
    if shape == "llama":
        changed["vocab_size"] = VOCABULARY
    model = random_model(shape, **changed)
    for weight in model.parameters():
        if weight.ndim == 2:
            weight.mul_(2.0)
    first = round(0.36 * length)
    noise = 3 * model.get_input_embeddings().weight.std() * torch.randn(samples, 2, model.config.hidden_size)
    ids = torch.randint(5, model.config.vocab_size, (1, length))
    return Workload(model, ids, noise, (first, first + 2), (11, 12, 13))


@torch.inference_mode()
def exact(
    work: Workload,
    parts: Sequence[Part],
    rounded: bool = False,
    units: Sequence[Sequence[int]] | None = None,
) -> dict[Part, np.ndarray]:
    """Our grid: probability by part, an array (unit, layer); a unit is a position where no other are given."""
    runner = BlockRunner(work.model, rounded=rounded)
    embeds = runner.embed(work.ids)
    corrupted = embeds.repeat(len(work.noise), 1, 1)
    corrupted[:, work.span] += work.noise.to(embeds.dtype)
    runs = clean_and_corrupted(runner, embeds, corrupted)
    answer = Answer(work.words, 0)
    units = units or [[t] for t in range(work.ids.shape[1])]
    all_cells = cells(parts, runner.layers, WINDOW, runner.heads)
    corrupted_run = answer.means(runner.logits(runs.leaving[:, -1], work.words).float())
    with OneDNN(runner.blocks, lay_out=True).on():  # `trace_prompts` does so once for all prompts
        grids = restore(runner, runs, units, all_cells, answer, corrupted_run, MemoryBudget(16384))
    return {part: grid[0] for part, grid in grids.items()}


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    gc.collect()
    began = time.perf_counter()
    result = call()
    return time.perf_counter() - began, result


def floor_flops(
    config: PreTrainedConfig,
    length: int,
    samples: int,
    first: int,
    parts: Sequence[Part],
    units: Sequence[Sequence[int]],
) -> float:
    """FLOPs (two a multiply-add) of the matrix products that no exact engine with the whole grid can do without.

    `units` are the positions that are restored together, `first` is the first corrupted one. Both runs; inside each
    restored layer, the restored positions after its attention; then for each distinct row of the batch: in its first
    block all but queries, keys and values of positions that were not restored, which are the corrupted run's; in the
    last block keys and values, and the rest at one position; in between everything. Windows that start at the same
    layer are one row until they end, and every head is a row. Label words' logits are left out: they are nothing.
    """
    width, layers = config.hidden_size, config.num_hidden_layers
    head = getattr(config, "head_dim", None) or width // config.num_attention_heads
    across = config.num_attention_heads * head  # of all queries
    query, key_value = 2 * width * across, 4 * width * config.num_key_value_heads * head
    asking, rest = query + key_value, 2 * width * across + 6 * width * config.intermediate_size  # of one position
    mixing = 4 * across  # of one query and key

    def row(joins: int, late: int, fresh: int) -> float:
        """A row from block `joins` to the end, with `late` positions to compute, of which `fresh` were restored."""
        total = 0.0
        for layer in range(joins, layers):
            known = fresh if layer == joins else 0
            if layer == layers - 1:
                total += rest + mixing * length + (known * asking if known else query + key_value * late)
            else:
                total += late * (rest + mixing * (length - (late - 1) / 2)) + asking * (known or late)
        return total

    per_position = asking + rest + mixing * (length + 1) / 2
    total = (length + samples * (length - first)) * layers * per_position
    for part in parts:
        windows = cells([part], layers, WINDOW, heads=1)
        rows = samples * (config.num_attention_heads if part is Part.head else 1)
        for unit in units:
            restored = [position for position in unit if position >= first]
            if not restored:
                continue
            late = length - restored[0]
            for start in {c.start for c in windows}:
                stops = sorted({c.stop for c in windows if c.start == start})
                total += rows * row(start + 1, late, len(restored))
                total += rows * sum(row(stop, late, 0) for stop in stops[:-1])
                total += rows * len(restored) * (rest if part in (Part.attn, Part.head) else 0)
    return total


def floor_of(work: Workload, parts: Sequence[Part]) -> float:
    """`floor_flops` of a grid over every token."""
    length = work.ids.shape[1]
    units = [[position] for position in range(length)]
    return floor_flops(work.model.config, length, len(work.noise), work.corrupted[0], parts, units)


def measured_peers(work: Workload, parts: Sequence[Part], console: Console, rounds: int) -> dict[str, dict[str, float]]:
    """Seconds a grid of each tool by part, in interleaved rounds, and how far its cells are from ours."""
    rng = np.random.default_rng(0)
    length, layers = work.ids.shape[1], work.model.config.num_hidden_layers
    chosen = {
        part: [
            (cells([part], layers, WINDOW)[int(i)], int(t))
            for i, t in zip(
                rng.choice(layers, SAMPLED, replace=layers < SAMPLED),
                rng.integers(work.corrupted[0], length, SAMPLED),
                strict=True,
            )
        ]
        for part in parts
    }
    ours = exact(work, parts)
    results: dict[str, dict[str, float]] = {}
    tools: dict[str, Measure] = {name: prepare(work) for name, prepare in available().items()}
    seconds: dict[tuple[str, Part], list[float]] = {}
    for turn in range(rounds + 1):  # the first warms up
        for name, measure in tools.items():
            for part, picked in chosen.items():
                took, values = timed(lambda measure=measure, picked=picked: measure(picked))
                if turn:
                    seconds.setdefault((name, part), []).append(took / len(picked))
                else:
                    gap = max(abs(v - ours[part][t, c.layer]) for v, (c, t) in zip(values, picked, strict=True))
                    results.setdefault(name, {"gap": 0.0})["gap"] = max(results.get(name, {"gap": 0.0})["gap"], gap)
        console.print(f"round {turn} of {rounds}")
    for (name, part), took in seconds.items():
        results[name][part.value] = statistics.median(took) * length * layers
    for tool in results.values():
        tool["all"] = sum(tool[part.value] for part in parts)
    return results


def bench_trace(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Our grids against the floor and the other tools."""
    length, rounds = arguments.length, arguments.rounds
    work = workload(arguments.layers, length, arguments.samples, arguments.shape)
    layers, width = work.model.config.num_hidden_layers, work.model.config.hidden_size
    flops = {}
    for name, parts in (*GRIDS.items(), ("head", HEADS)):
        with FlopCounterMode(display=False) as counter:
            exact(work, parts)
        flops[name] = {"ours": counter.get_total_flops(), "floor": floor_of(work, parts)}
    console.print("counted; timing")
    peers = measured_peers(work, GRIDS["all"], console, rounds)
    missing = [name for name in PEERS if name not in peers]
    if missing:
        console.print(f"not installed, so not measured: {', '.join(missing)} (pip install -e '.[bench]')")
    ours = {
        name: statistics.median(timed(lambda parts=parts: exact(work, parts))[0] for _ in range(rounds))
        for name, parts in GRIDS.items()
    }
    ours["head"] = timed(lambda: exact(work, HEADS))[0]
    again = measured_peers(work, GRIDS["all"], console, rounds)
    for name, tool in peers.items():  # before and after ours: a machine's speed drifts
        peers[name] = {k: (v + again[name][k]) / 2 if k != "gap" else max(v, again[name][k]) for k, v in tool.items()}
    fastest = {grid: min(peers[p][grid] for p in PEERS if p in peers) for grid in GRIDS}
    with FlopCounterMode(display=False) as counter:
        work.model(inputs_embeds=work.noisy(), use_cache=False)
    rate = counter.get_total_flops() * length * layers / peers["hook_loop"]["block"]
    return {
        "shape": {
            "name": arguments.shape, "layers": layers, "tokens": length, "samples": arguments.samples,
            "hidden": width, "window": WINDOW,
        },
        "peers_missing": missing,
        "seconds": {"absa_edit": ours, **{n: {g: t[g] for g in GRIDS} for n, t in peers.items()}},
        "ratio_over_fastest_peer": {grid: fastest[grid] / ours[grid] for grid in GRIDS},
        "ratio_over_hook_loop": {grid: peers["hook_loop"][grid] / ours[grid] for grid in GRIDS},
        "max_abs_difference": max(tool["gap"] for tool in peers.values()),
        "flops": {grid: {**f, "over_floor": f["ours"] / f["floor"]} for grid, f in flops.items()},
        "time_over_floor": {grid: seconds * rate / flops[grid]["floor"] for grid, seconds in ours.items()},
        "bfloat16": bfloat16(work, min(2, rounds)),
    }  # fmt: skip


def bfloat16(work: Workload, rounds: int) -> dict[str, Any]:
    """What `trace.dtype=bfloat16` gains over float32, in turns, and what it changes."""
    over, grids = {}, {}
    for name, parts in GRIDS.items():
        took: dict[bool, list[float]] = {False: [], True: []}
        for rounded in (*took,) * rounds:
            seconds, grids[name, rounded] = timed(lambda parts=parts, rounded=rounded: exact(work, parts, rounded))
            took[rounded].append(seconds)
        over[name] = min(took[False]) / min(took[True])
    exactly, roughly = (
        np.stack([grids["all", rounded][part][work.corrupted[0] :] for part in GRIDS["all"]]).ravel()
        for rounded in (False, True)
    )
    return {
        "over_float32": over,
        "max_abs_difference": float(np.abs(exactly - roughly).max()),
        "rank_correlation": float(spearmanr(exactly, roughly).statistic),
    }


def scaling(console: Console) -> dict[str, Any]:
    """Seconds of our grid of all parts, and of the fastest tool's, as one of the sizes changes."""
    results: dict[str, Any] = {}
    for axis, sizes in SIZES.items():
        rows = []
        for size in sizes:
            shape = {**STANDARD, axis: size}
            work = workload(shape["layers"], shape["tokens"], shape["samples"])
            took, _ = timed(lambda work=work: exact(work, GRIDS["all"]))
            peers = measured_peers(work, GRIDS["all"], console, rounds=1)
            rows.append(
                {axis: size, "absa_edit": took, "fastest_peer": min(peers[p]["all"] for p in PEERS if p in peers)}
            )
            console.print(rows[-1])
        results[axis] = {
            "rows": rows,
            "exponents": exponents(rows, axis),
            "ratio_at_least": min(row["fastest_peer"] / row["absa_edit"] for row in rows),
        }
        console.print(results[axis]["exponents"], f"at least {results[axis]['ratio_at_least']:.1f} times as fast")
    return results


def counted_7b(examples: int = 8, samples: int = 3) -> dict[str, float]:
    """FLOPs and bytes of tracing some prompts by role in a 7B Llama in bfloat16, counted from its shape: not run.

    FLOPs are the floor, to which the engine is held where it runs. Bytes: the weights; what both runs leave behind; and
    one batch of `trace.batch_tokens` states, at its widest inside an MLP.
    """
    config = LlamaConfig(**SHAPE_7B)
    prompts, _ = prompts_of(Job("edit", examples=examples))
    parts, flops, kept = GRIDS["all"], 0.0, 0
    for prompt in prompts:
        units = [prompt.positions(role) for role in Role if role is not Role.instruction]
        first = min(prompt.positions(Role.before, Role.aspect, Role.after, Role.punctuation))
        length, late = len(prompt.ids), len(prompt.ids) - first
        flops += floor_flops(config, length, samples, first, parts, [unit for unit in units if unit])
        states = (len(parts) + 1) * length + 4 * samples * late + 2 * samples * length
        kept = max(kept, 2 * config.num_hidden_layers * states * config.hidden_size)
    batch = 2 * TraceSettings().batch_tokens * (3 * config.intermediate_size + 2 * config.hidden_size)
    weights = 2 * sum(p.numel() for p in model_7b().parameters())
    return {
        "run": False, "examples": len(prompts), "flops": flops,
        "weights": weights, "both runs": kept, "widest batch": batch, "bytes": weights + kept + batch,
    }  # fmt: skip


def show(result: dict[str, Any], console: Console) -> None:
    grids = (*GRIDS, "head")
    table = Table("seconds a grid", *grids)
    for name, row in result["seconds"].items():
        table.add_row(name, *(f"{row[grid]:.1f}" for grid in grids if grid in row))
    for key in ("ratio_over_fastest_peer", "ratio_over_hook_loop", "time_over_floor"):
        table.add_row(key.replace("_", " "), *(f"{result[key][grid]:.2f}" for grid in grids if grid in result[key]))
    table.add_row("FLOPs over floor", *(f"{result['flops'][grid]['over_floor']:.3f}" for grid in grids))
    table.add_row("bfloat16 over float32", *(f"{result['bfloat16']['over_float32'][grid]:.2f}" for grid in GRIDS))
    console.print(table)
    console.print(
        f"largest difference to another tool {result['max_abs_difference']:.1e}; bfloat16: single cells off by up to "
        f"{result['bfloat16']['max_abs_difference']:.3f}, rank correlation {result['bfloat16']['rank_correlation']:.4f}"
    )


def main(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    """The figures of `outputs/bench/trace.json`, also shown."""
    result = bench_trace(arguments, console)
    show(result, console)
    if arguments.meta:
        result["counted_7b"] = counted_7b()
        console.print_json(data=result["counted_7b"])
    if arguments.scaling:
        result["scaling"] = scaling(console)
        draw_scaling(result["scaling"], "seconds, all three grids", OUT / "figures" / "trace_scaling.png")
    return result
