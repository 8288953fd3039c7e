"""Scoring with demonstrations before each prompt and without any, in turns in one process.

What the demonstrations cost once (their own run, which all prompts share) is in the time, and so is what each prompt
pays for looking back at them. Both are scored in batches of as many tokens as a run's. On a CPU time is what the
processor spent, so that other work on the machine counts less.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from absa_edit.data.prompts import encode, label_ids
from absa_edit.data.settings import DataSettings, PromptSettings
from absa_edit.data.shots import draw_shots, preamble_of
from absa_edit.data.sources import load_splits
from absa_edit.evaluation.predict import log_probabilities
from absa_edit.evaluation.settings import ScoreSettings
from absa_edit.methods.adapted_model import AdaptedModel
from absa_edit.model.loading import load_model
from absa_edit.model.settings import ModelSettings
from absa_edit.tasks.absc import ABSC


def measured(model: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Median seconds with and without shots, their ratio in each round, and what is scored."""
    lm = load_model(ModelSettings(name=model, device=arguments.device, dtype=arguments.dtype))
    splits = load_splits(DataSettings(name=arguments.data, tests=[]), ABSC, root=Path("."), environ=os.environ)
    test = splits.tests[0].examples[: arguments.examples]
    plain = ABSC.prompt(PromptSettings(max_tokens=2048))
    shots = draw_shots(splits.train.examples, ABSC.labels, arguments.shots, np.random.default_rng(arguments.seed))
    text = preamble_of(shots, ABSC.labels, plain)
    with_shots = ABSC.prompt(PromptSettings(max_tokens=2048, preamble=text))
    prompts = {0: encode(test, lm.tokenizer, plain), arguments.shots: encode(test, lm.tokenizer, with_shots)}
    labels = label_ids(lm.tokenizer, plain, ABSC.labels)
    adapted = AdaptedModel("zero_shot", lm.model, start=lm.runner.layers)
    clock = time.process_time if lm.model.device.type == "cpu" else time.perf_counter
    tokens = ScoreSettings().batch_tokens
    seconds: dict[int, list[float]] = {count: [] for count in prompts}
    for turn in range(arguments.rounds + 1):  # the first warms up
        for count, rows in prompts.items():
            began = clock()
            log_probabilities(adapted, rows, labels, batch_tokens=tokens)
            if turn:
                seconds[count].append(clock() - began)
    none, some = seconds.values()
    ratios = [b / a for a, b in zip(none, some, strict=True)]
    return {
        "data": splits.train.name,
        "examples": len(test),
        "tokens": [statistics.mean(len(p.ids) for p in rows) for rows in prompts.values()],
        "seconds": {count: statistics.median(took) for count, took in seconds.items()},
        "ratio": statistics.median(ratios),
        "ratios": ratios,
    }


def main(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    """The figures of `outputs/bench/shots.json`, also shown."""
    result = {}
    for model in arguments.models:
        measures = result[model] = measured(model, arguments)
        columns = "shots", "tokens of a prompt", "seconds", "of those without"
        table = Table(*columns, title=f"{model}: {measures['examples']} examples of {measures['data']}")
        for (count, took), length in zip(measures["seconds"].items(), measures["tokens"], strict=True):
            ratio = (
                ""
                if not count
                else f"{measures['ratio']:.2f} ({min(measures['ratios']):.2f}-{max(measures['ratios']):.2f})"
            )
            table.add_row(str(count), f"{length:.0f}", f"{took:.2f}", ratio)
        console.print(table)
    return result
