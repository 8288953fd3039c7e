"""Factors of components: what they multiply, what they learn, and that they fold into the weights."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from families import sites_in

from absa_edit.context import Context
from absa_edit.data.sources import Splits
from absa_edit.errors import PlanError, SettingsError
from absa_edit.evaluation.predict import log_probabilities
from absa_edit.evaluation.scoring import development_scores
from absa_edit.export.folder import merged
from absa_edit.localizers.plan import plan_of
from absa_edit.methods.adapted_model import AdaptedModel, changed_elsewhere
from absa_edit.methods.amplify import Amplify
from absa_edit.methods.base import adapt
from absa_edit.model.hooks import edited
from absa_edit.model.loading import LanguageModel
from absa_edit.records import Part, Site
from absa_edit.resampling import label_numbers
from absa_edit.tasks.absc import ABSC
from absa_edit.training.fitting import fit_method

SITES = [Site(1, Part.attn), Site(1, Part.mlp), Site(2, Part.mlp)]
GAINS = (1.5, 0.5, -0.75)


def context(lm: LanguageModel, examples) -> Context:
    """One whose development data is its training data."""
    ctx = Context.of(lm, ABSC, examples)
    return replace(ctx, splits=Splits(ctx.splits.train, replace(ctx.splits.train, split="dev"), (), ()))


def amplified(lm: LanguageModel, examples, gains=GAINS) -> AdaptedModel:
    adapted = adapt(context(lm, examples), Amplify(), plan_of(lm.runner, sites_in(lm.model, SITES), 1, "manual"))
    with torch.no_grad():
        for parameter, gain in zip(adapted.trainable().values(), gains, strict=False):
            parameter.fill_(gain)
    return adapted


def test_factors_of_1_change_nothing(tiny, examples, prompts, labels) -> None:
    adapted, base = amplified(tiny, examples, (1.0,) * 3), AdaptedModel("base", tiny.model)
    scores = [log_probabilities(a, prompts, labels, batch_tokens=400) for a in (adapted, base)]
    np.testing.assert_array_equal(*scores)
    assert not list(changed_elsewhere(adapted, tiny.model))


def test_factors_multiply_what_components_add(tiny, examples, prompts, labels) -> None:
    adapted = amplified(tiny, examples)
    assert adapted.count() == len(adapted.plan.targets)
    words = [word[0] for word in labels.values()]
    scores = log_probabilities(adapted, prompts, labels, batch_tokens=400)
    after = merged(adapted)
    assert not any("gain" in name for name, _ in after.named_parameters())
    for prompt, row in zip(prompts, scores, strict=True):
        with torch.no_grad():
            ids = torch.tensor([prompt.ids])
            hooks = [
                edited(tiny.runner.added(t.site.layer, t.site.part), lambda out, gain=gain: gain * out)
                for t, gain in zip(adapted.plan.targets, GAINS, strict=False)
            ]
            for hook in hooks:
                hook.__enter__()
            expected = tiny.model(ids).logits[0, -1, words].log_softmax(-1)
            for hook in hooks:
                hook.__exit__(None, None, None)
            folded = after(ids).logits[0, -1, words].log_softmax(-1)
        np.testing.assert_allclose(row, expected.numpy(), atol=3e-4)
        np.testing.assert_allclose(row, folded.numpy(), atol=3e-4)


@pytest.mark.parametrize("on", ["dev", "train"])
def test_the_loss_falls(small, examples, prompts, labels, on) -> None:
    settings, ctx = Amplify(on=on, rounds=2), context(small, examples)
    adapted = amplified(small, examples, (1.0,) * 3)
    gold = label_numbers([e.label for e in examples], ABSC.labels)

    def evaluate() -> dict[str, float]:
        return development_scores(log_probabilities(adapted, prompts, labels, batch_tokens=400), gold)

    before = evaluate()["dev_log_loss"]
    fitted = fit_method(ctx, settings, adapted, evaluate)
    losses = [row["dev_log_loss"] for row in fitted.history]
    assert fitted.history[0]["loss"] == pytest.approx(before, abs=1e-4)
    assert losses[0] < before - 0.01 and losses[1] <= losses[0] and fitted.epochs == 2
    assert not list(changed_elsewhere(adapted, small.model))


def test_what_has_no_factor_is_refused(small) -> None:
    ctx = Context.of(small)
    with pytest.raises(PlanError, match=r"head\.1@0: method amplify scales all heads of a layer together"):
        adapt(ctx, Amplify(), plan_of(small.runner, [Site(0, Part.head, 1)], 1, "manual"))
    with pytest.raises(SettingsError, match="on=test: expected dev or train"):
        Amplify(on="test")
    with pytest.raises(SettingsError, match="rounds=0"):
        Amplify(rounds=0)
