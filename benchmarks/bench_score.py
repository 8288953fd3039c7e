"""Scoring a method on a test set: all of it, or only the blocks from the first changed one on.

Of several methods scored on the same sets, the base model's states below an edit are computed once. Trees against one
padded row a prompt, and edits at several depths against a full pass, in turns in one process.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from fits import Job, adapted_to, model_of, prompts_of
from rich.console import Console
from rich.table import Table

from absa_edit.data.prompts import Prompt
from absa_edit.evaluation.predict import BaseStates, Labels, log_probabilities
from absa_edit.localizers.plan import plan_of
from absa_edit.methods.adapted_model import AdaptedModel
from absa_edit.methods.low_rank_edit import Edit
from absa_edit.methods.zero_shot import ZeroShot
from absa_edit.model.block_runner import BlockRunner
from absa_edit.model.prefix_tree import length_buckets
from absa_edit.records import Part, Site

ROUNDS = 3
TOKENS = 4096
"""Of one batch."""


@torch.no_grad()
def padded_rows(adapted: AdaptedModel, prompts: Sequence[Prompt], labels: Labels) -> None:
    """Scoring as it is usually written: padded rows through the model's own forward, batched by length."""
    first = [word[0] for word in labels.values()]
    for batch in length_buckets([len(p.ids) for p in prompts], TOKENS):
        longest = max(len(prompts[i].ids) for i in batch)
        ids = torch.tensor([[0] * (longest - len(prompts[i].ids)) + list(prompts[i].ids) for i in batch])
        mask = torch.tensor([[0] * (longest - len(prompts[i].ids)) + [1] * len(prompts[i].ids) for i in batch])
        logits = adapted.model(input_ids=ids, attention_mask=mask, use_cache=False, logits_to_keep=1).logits
        logits[:, -1].float().log_softmax(-1)[:, first]


def measured(model: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Median seconds of each way to score the same prompts, and their ratios to what is left of the model."""
    job = Job("edit", model, examples=arguments.examples)
    base = model_of(job)
    prompts, labels = prompts_of(job)
    layers = BlockRunner(base).layers
    plain = adapted_to(base, ZeroShot(), None)
    starts = [layers // 4, layers // 2, 3 * layers // 4]
    known = BaseStates(labels, base.dtype, starts, TOKENS, gib=4.0)
    ways: dict[str, Callable[[], object]] = {
        "padded rows": lambda: padded_rows(plain, prompts, labels),
        "full pass": lambda: log_probabilities(plain, prompts, labels, batch_tokens=TOKENS),
    }
    for start in starts:
        plan = plan_of(BlockRunner(base), [Site(layer, Part.attn) for layer in range(start, start + 3)], 4, "manual")
        edit = adapted_to(base, Edit(lr=1e-3), plan)
        ways[f"edit from block {start}"] = lambda edit=edit: log_probabilities(
            edit, prompts, labels, batch_tokens=TOKENS, frozen=known.of(edit, "sample", prompts)
        )
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(ROUNDS + 1):  # the first fills what is kept
        for way, call in ways.items():
            began = time.perf_counter()
            call()
            if turn:
                seconds[way].append(time.perf_counter() - began)
    medians = {way: statistics.median(took) for way, took in seconds.items()}
    full_pass = medians["full pass"]
    return {
        "seconds": medians,
        "examples_per_second": {way: len(prompts) / took for way, took in medians.items()},
        "over_full_pass": {way: took / full_pass for way, took in medians.items()},
        "left_of_the_model": {f"edit from block {start}": (layers - start) / layers for start in starts},
    }


def main(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    """The figures of `outputs/bench/score.json`, also shown."""
    results: dict[str, Any] = {}
    for model in arguments.models:
        measures = results[model] = measured(model, arguments)
        table = Table(f"{model}: scoring", "seconds", "examples / s", "of a full pass", "of the blocks")
        for way, took in measures["seconds"].items():
            left = measures["left_of_the_model"].get(way)
            table.add_row(
                way, f"{took:.2f}", f"{measures['examples_per_second'][way]:.0f}",
                f"{measures['over_full_pass'][way]:.2f}", f"{left:.2f}" if left else "",
            )  # fmt: skip
        console.print(table)
    return results
