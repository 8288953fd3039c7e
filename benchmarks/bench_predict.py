"""Measure how fast answers come: batched label scoring against generating them one at a time.

One at a time is what the AAAI-25 paper's published code does: `model.generate` for each prompt with at most ten new
tokens and the usual key-value cache, the text decoded, stripped and compared with the label; here greedily, so that
both answer the same (it samples). Same model object, same machine, the two in turns; medians of the rounds.
Questions are those of the bundled laptop sample.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from absa_edit.context import Context
from absa_edit.data.prompts import encode
from absa_edit.data.settings import DataSettings
from absa_edit.data.sources import load_splits
from absa_edit.inference.classifier import Classifier
from absa_edit.methods.base import adapt
from absa_edit.methods.zero_shot import ZeroShot
from absa_edit.model.loading import load_model
from absa_edit.model.settings import ModelSettings
from absa_edit.records import Example
from absa_edit.tasks.absc import ABSC

ROUNDS = 5
ALONE = 40
"""Pairs that are generated in each round; enough for a rate, since each takes its own time."""
NEW_TOKENS = 10


def generated(classifier: Classifier, examples: list[Example]) -> list[str]:
    """The text that the model goes on with after each prompt, stripped."""
    tokenizer, model = classifier.lm.tokenizer, classifier.lm.model
    texts = []
    for prompt in encode(examples, tokenizer, classifier.prompt):
        ids = torch.tensor([prompt.ids], device=model.device)
        with torch.no_grad():
            out = model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW_TOKENS, do_sample=False
            )
        texts.append(tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True).strip())
    return texts


def scored(classifier: Classifier, examples: list[Example]) -> list[str]:
    """The likeliest label word of each prompt, batched by length."""
    words = dict(zip(classifier.task.labels, classifier.prompt.labels, strict=True))
    return [words[max(p, key=p.__getitem__)] for p in classifier.answer(examples)]


def rate(answer: Callable[[Classifier, list[Example]], list[str]], *case: Any) -> tuple[float, list[str]]:
    """Answers a second, and the answers."""
    began = time.perf_counter()
    answers = answer(*case)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return len(answers) / (time.perf_counter() - began), answers


def bench(classifier: Classifier, examples: list[Example]) -> dict[str, Any]:
    """Rates of both, their ratio in each round, and how often they agree."""
    alone = examples[:: max(1, len(examples) // ALONE)][:ALONE]
    for warm in (scored, generated):
        warm(classifier, alone[:4])
    rows = []
    for _ in range(ROUNDS):
        slow, texts = rate(generated, classifier, alone)
        fast, labels = rate(scored, classifier, examples)
        rows.append({"one_at_a_time": slow, "batched": fast, "ratio": fast / slow})
    by_example = dict(zip((e.id for e in examples), labels, strict=True))
    agree = [text == by_example[e.id] for e, text in zip(alone, texts, strict=True)]
    return {
        "model": classifier.lm.summary().source,
        "parameters": classifier.lm.model.num_parameters(),
        "dtype": classifier.lm.summary().dtype,
        "device": str(classifier.lm.model.device),
        "pairs": len(examples),
        "rounds": rows,
        "one_at_a_time_per_second": statistics.median(row["one_at_a_time"] for row in rows),
        "batched_per_second": statistics.median(row["batched"] for row in rows),
        "ratio": statistics.median(row["ratio"] for row in rows),
        "agreement": sum(agree) / len(agree),
    }


def main(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    """The figures of `outputs/bench/predict.json`, also shown."""
    lm = load_model(ModelSettings(name=arguments.model, device=arguments.device, dtype=arguments.dtype))
    classifier = Classifier(lm, adapt(Context.of(lm), ZeroShot(), None), ABSC.prompt(), ABSC)
    splits = load_splits(DataSettings(name="laptop-sample"), root=Path(), environ={})
    result = bench(classifier, list(splits.tests[0].examples)[: arguments.examples])
    table = Table("answers a second", "one at a time", "batched", "ratio", "same answer")
    rates = (f"{result[f'{name}_per_second']:.1f}" for name in ("one_at_a_time", "batched"))
    table.add_row(result["model"], *rates, f"{result['ratio']:.1f}", f"{100 * result['agreement']:.0f} %")
    console.print(table)
    return result
