"""What a model does besides its task: equal for the base and what did not change it, and moved by what did."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from contexts import adapt
from sklearn.metrics import log_loss

from absa_edit.context import Context
from absa_edit.data.general_sentiment import QUESTION, general_sets
from absa_edit.data.neutral import neutral_text, some_paragraphs
from absa_edit.data.prompts import content_free, encode, label_ids
from absa_edit.errors import ModelError
from absa_edit.evaluation.settings import ScoreSettings
from absa_edit.localizers.plan import plan_of
from absa_edit.methods.adapted_model import AdaptedModel
from absa_edit.methods.low_rank_edit import Edit
from absa_edit.methods.zero_shot import ZeroShot
from absa_edit.model.loading import LanguageModel
from absa_edit.pipeline.stages import retention as module
from absa_edit.pipeline.stages.retention import base_retention, check_retention, retention
from absa_edit.records import Dataset, Part, Site
from absa_edit.results import Interval, Score
from absa_edit.tasks.absc import ABSC

SETTINGS = ScoreSettings(resamples=30, general_examples=12, neutral_words=150)


@pytest.fixture
def ctx(small: LanguageModel, examples, tmp_path: Path) -> Context:
    made = Context.of(small, ABSC, examples, score=SETTINGS)
    tests = (Dataset("elsewhere", "test", "python", tuple(examples), {}, ABSC.labels),)
    return replace(made, splits=replace(made.splits, tests=tests, general=general_sets([])), folder=tmp_path)


def log_losses(value: float) -> Score:
    interval = Interval(value, value, value, 3)
    return Score(interval, interval, {}, (), interval)


def plain(ctx: Context, ids: list[int], words: list[int]) -> np.ndarray:
    """Log-probabilities of the words after a prompt, by one forward pass."""
    with torch.no_grad():
        logits = ctx.lm.model(input_ids=torch.tensor([ids])).logits[0, -1].double().log_softmax(-1)
    return logits[words].numpy()


def test_general_sentiment_equals_plain_forward_passes(ctx: Context) -> None:
    base = AdaptedModel("base", ctx.lm.model, start=ctx.lm.runner.layers)
    made = retention(ctx, "base", base, {"python": log_losses(0.1), "elsewhere": log_losses(0.7)})
    drawn = module.limit(ctx.splits.general[0], 12, ctx.rng("general general-sample"))
    tokenizer, prompt = ctx.lm.tokenizer, QUESTION.prompt()
    words = [word[0] for word in label_ids(tokenizer, prompt, QUESTION.labels).values()]
    empty = np.exp([plain(ctx, list(p.ids), words) for p in content_free(tokenizer, prompt)])
    nothing = (empty / empty.sum(1, keepdims=True)).mean(0)
    rows = np.array([plain(ctx, list(p.ids), words) for p in encode(drawn.examples, tokenizer, prompt)])
    rows = np.exp(rows) / np.exp(rows).sum(1, keepdims=True) / nothing
    rows /= rows.sum(1, keepdims=True)
    gold = [QUESTION.labels.index(e.label) for e in drawn.examples]
    score = made.sentiment["general-sample"]
    assert score.log_loss is not None
    assert score.log_loss.value == pytest.approx(log_loss(gold, rows, labels=[0, 1]), rel=1e-4)
    assert score.accuracy.value == pytest.approx((rows.argmax(1) == gold).mean())
    assert score.accuracy.n == 12
    assert made.elsewhere == {"elsewhere": Interval(0.7, 0.7, 0.7, 3)}, "the training data's own set is none of them"
    paragraphs = some_paragraphs(neutral_text(), 150, ctx.rng("neutral text"))
    assert made.words == sum(len(p.split()) for p in paragraphs) >= 150
    assert made.perplexity is not None and made.perplexity.n == len(paragraphs)


def test_an_untrained_method_does_what_the_base_does_and_a_changed_one_does_not(ctx: Context) -> None:
    base = retention(ctx, "base", AdaptedModel("base", ctx.lm.model), {})
    plan = plan_of(ctx.lm.runner, [Site(1, Part.mlp)], 2, "manual")
    adapted = adapt(ctx.lm.model, Edit(lr=1e-3), plan, seed=0)
    assert retention(ctx, "edit", adapted, {}) == base
    with torch.no_grad():
        for name, parameter in adapted.trainable().items():
            if "lora_B" in name:
                parameter.add_(0.5)
    changed = retention(ctx, "edit", adapted, {})
    assert changed.sentiment["general-sample"].log_loss != base.sentiment["general-sample"].log_loss
    assert changed.perplexity != base.perplexity and changed.words == base.words


def test_a_calibrated_method_and_a_representation_edit_are_asked_as_the_base(ctx: Context) -> None:
    base = retention(ctx, "base", AdaptedModel("base", ctx.lm.model), {})
    calibrated = adapt(ctx.lm.model, ZeroShot(calibrate=True), None, seed=0)
    plan = plan_of(ctx.lm.runner, [Site(1, Part.mlp)], 2, "manual")
    edited = adapt(ctx.lm.model, Edit(lr=1e-3, weights=False, representation=True), plan, seed=0)
    for adapted in (calibrated, edited):
        assert retention(ctx, "other", adapted, {}) == base


def test_without_retention_perplexity_alone_is_told(ctx: Context) -> None:
    score = replace(SETTINGS, retention=False)
    alone = replace(ctx, settings=replace(ctx.settings, score=score))
    made = retention(alone, "base", AdaptedModel("base", ctx.lm.model), {"elsewhere": log_losses(0.7)})
    assert made.perplexity is not None and not made.sentiment and not made.elsewhere


def test_the_base_is_measured_once(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    tests = {"elsewhere": ctx.encode(ctx.splits.tests[0])}
    made = base_retention(ctx, tests)
    assert made.elsewhere["elsewhere"].n == len(tests["elsewhere"])
    monkeypatch.setattr(module, "retention", lambda *_: pytest.fail("measured again"))
    assert base_retention(ctx, tests) == made
    with pytest.raises(pytest.fail.Exception):
        base_retention(replace(ctx, settings=replace(ctx.settings, score=replace(SETTINGS, neutral_words=9))), tests)


def test_a_question_that_cannot_be_asked_is_refused_at_once(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    check_retention(ctx)

    def refuse(*_: object) -> None:
        raise ModelError("label word 'good': no")

    monkeypatch.setattr(module, "label_ids", refuse)
    with pytest.raises(ModelError, match=r"score.retention=true asks .*'good': no; or set it to false"):
        check_retention(ctx)
    check_retention(replace(ctx, settings=replace(ctx.settings, score=replace(SETTINGS, retention=False))))
