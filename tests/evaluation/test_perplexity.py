"""Perplexity against a token-by-token computation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from contexts import adapt

from absa_edit.data.neutral import neutral_text
from absa_edit.evaluation import perplexity as module
from absa_edit.evaluation.perplexity import perplexity as perplexity_interval
from absa_edit.localizers.plan import plan_of
from absa_edit.methods.low_rank_edit import Edit
from absa_edit.methods.zero_shot import ZeroShot
from absa_edit.records import Part, Site


def perplexity(adapted, tokenizer, texts, **options) -> float | None:
    interval = perplexity_interval(adapted, tokenizer, texts, draws=20, rng=np.random.default_rng(0), **options)
    return interval and interval.value


TEXTS = ["The bridge crosses the river.", "Water boils.", "A week has seven days and a year has twelve months."]


@torch.no_grad()
def test_equals_the_mean_over_tokens_by_hand(tiny) -> None:
    total, count = 0.0, 0
    for text in TEXTS:
        ids = tiny.tokenizer(text)["input_ids"]
        scores = tiny.model(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(-1)
        total -= sum(float(scores[i, ids[i + 1]]) for i in range(len(ids) - 1))
        count += len(ids) - 1
    adapted = adapt(tiny.model, ZeroShot(), None, seed=0)
    assert perplexity(adapted, tiny.tokenizer, TEXTS) == pytest.approx(math.exp(total / count), rel=1e-4)


def test_the_interval_resamples_texts(small) -> None:
    adapted = adapt(small.model, ZeroShot(), None, seed=0)
    single = [perplexity(adapted, small.tokenizer, [text]) for text in TEXTS]
    tokens = [len(small.tokenizer(text)["input_ids"]) - 1 for text in TEXTS]
    losses = np.log(single) * tokens
    interval = perplexity_interval(adapted, small.tokenizer, TEXTS, draws=300, rng=np.random.default_rng(1))
    times = np.random.default_rng(1).multinomial(3, [1 / 3] * 3, size=300)
    expected = np.quantile(np.exp(times @ losses / (times @ np.array(tokens))), [0.025, 0.975])
    assert (interval.low, interval.high) == pytest.approx(tuple(expected), rel=1e-4)
    assert interval.n == 3


def test_batches_do_not_change_it(small, monkeypatch) -> None:
    adapted, texts = adapt(small.model, ZeroShot(), None, seed=0), [*TEXTS, *neutral_text()[:5]]
    at_once = perplexity(adapted, small.tokenizer, texts)
    assert perplexity(adapted, small.tokenizer, texts, batch_tokens=16) == pytest.approx(at_once, rel=1e-5)
    monkeypatch.setattr(module, "MOST_LOGITS", 32 * adapted.model.config.vocab_size)
    assert perplexity(adapted, small.tokenizer, texts) == pytest.approx(at_once, rel=1e-5)


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


def test_the_bundled_model_reads_english(bundled) -> None:
    adapted = adapt(bundled.model, ZeroShot(), None, seed=0)
    english = perplexity(adapted, bundled.tokenizer, neutral_text()[:3])
    scrambled = [" ".join(sorted(line.split())) for line in neutral_text()[:3]]
    assert english < 500 < perplexity(adapted, bundled.tokenizer, scrambled)
