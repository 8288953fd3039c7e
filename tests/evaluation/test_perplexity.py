"""Perplexity against a token-by-token computation."""

from __future__ import annotations

import math

import pytest
import torch
from contexts import adapt

from absa_edit.evaluation.perplexity import neutral_text, perplexity
from absa_edit.localizers.plan import plan_of
from absa_edit.methods.low_rank_edit import Edit
from absa_edit.methods.zero_shot import ZeroShot
from absa_edit.records import Part, Site

TEXTS = ["The bridge crosses the river.", "Water boils.", "A week has seven days and a year has twelve months."]


@torch.no_grad()
def test_equals_the_mean_over_tokens_by_hand(tiny) -> None:
    total, count = 0.0, 0
    for text in TEXTS:
        ids = tiny.tokenizer(text)["input_ids"]
        scores = tiny.model(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(-1)
        total -= sum(float(scores[i, ids[i + 1]]) for i in range(len(ids) - 1))
        count += len(ids) - 1
    found = perplexity(adapt(tiny.model, ZeroShot(), None, seed=0), tiny.tokenizer, TEXTS)
    assert found == pytest.approx(math.exp(total / count), rel=1e-4)


def test_an_edit_of_a_weight_counts_and_one_at_the_aspect_does_not(small) -> None:
    plan = plan_of(small.runner, [Site(1, Part.mlp)], 2, "manual")
    adapted = adapt(small.model, Edit(lr=1e-3, representation=True), plan, seed=0)
    before = perplexity(adapted, small.tokenizer, TEXTS)
    with torch.no_grad():
        for name, parameter in adapted.trainable().items():
            if name.startswith("representation."):
                parameter.add_(1.0)
    assert perplexity(adapted, small.tokenizer, TEXTS) == before
    with torch.no_grad():
        for name, parameter in adapted.trainable().items():
            if "lora_B" in name:
                parameter.add_(1.0)
    assert perplexity(adapted, small.tokenizer, TEXTS) != pytest.approx(before, rel=1e-3)


def test_a_broken_model_has_none(small) -> None:
    adapted = adapt(small.model, ZeroShot(), None, seed=0)
    with torch.no_grad():
        adapted.model.get_output_embeddings().weight.fill_(torch.nan)
    assert perplexity(adapted, small.tokenizer, TEXTS) is None


def test_neutral_text_has_many_lines_and_no_empty_one() -> None:
    lines = neutral_text()
    assert len(lines) > 5 and all(line.strip() for line in lines)
    assert len(set(lines)) == len(lines)


def test_the_bundled_model_reads_english(bundled) -> None:
    adapted = adapt(bundled.model, ZeroShot(), None, seed=0)
    english = perplexity(adapted, bundled.tokenizer, neutral_text()[:3])
    scrambled = [" ".join(sorted(line.split())) for line in neutral_text()[:3]]
    assert english < 500 < perplexity(adapted, bundled.tokenizer, scrambled)
