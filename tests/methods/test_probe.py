"""Probes: states against plain forward passes, regressions against scikit-learn's, and what is exported."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

import absa_edit
from absa_edit.context import Context
from absa_edit.data.sources import Splits
from absa_edit.errors import ModelError, PlanError, SettingsError
from absa_edit.evaluation.perplexity import perplexity
from absa_edit.evaluation.predict import log_probabilities
from absa_edit.evaluation.scoring import development_scores
from absa_edit.export.folder import write_adapter
from absa_edit.export.remade import remade
from absa_edit.inference.classifier import Classifier
from absa_edit.inference.explain import explain
from absa_edit.methods.adapted_model import AdaptedModel, changed_elsewhere
from absa_edit.methods.answer_head import Pooling
from absa_edit.methods.base import adapt
from absa_edit.methods.probe import Probe
from absa_edit.model.hooks import recorded
from absa_edit.model.loading import LanguageModel
from absa_edit.model.span_states import SpanStates
from absa_edit.records import Part, Role, Site
from absa_edit.resampling import label_numbers
from absa_edit.results import Fit
from absa_edit.tasks.absc import ABSC
from absa_edit.training.fitting import fit_method


def probed(lm: LanguageModel, examples, settings: Probe) -> tuple[AdaptedModel, Fit]:
    ctx = Context.of(lm, ABSC, examples)
    ctx = replace(ctx, splits=Splits(ctx.splits.train, replace(ctx.splits.train, split="dev"), (), ()))
    adapted = adapt(ctx, settings, None)
    prompts, gold = ctx.encode(ctx.splits.dev), label_numbers([e.label for e in examples], ABSC.labels)

    def evaluate() -> dict[str, float]:
        return development_scores(log_probabilities(adapted, prompts, ctx.labels, batch_tokens=400), gold)

    return adapted, fit_method(ctx, settings, adapted, evaluate)


def plain_states(lm: LanguageModel, prompt, layer: int) -> np.ndarray:
    """What leaves a block in a plain forward pass."""
    with recorded(lm.runner.module(Site(layer, Part.block))) as states, torch.no_grad():
        lm.model(torch.tensor([prompt.ids]))
    return states[-1][0].numpy()


def test_states_are_those_of_plain_forward_passes(tiny, prompts) -> None:
    poolings = (Pooling.last, Pooling.aspect)
    states = SpanStates(tiny.runner, [p.ids for p in prompts], [[k.span(p) for k in poolings] for p in prompts])
    (batch,) = states.batches(4096) if len(states.batches(4096)) == 1 else [list(range(len(prompts)))]
    for layer, means in zip((0, 2), states.means(batch, (0, 2)), strict=True):
        for place, number in enumerate(batch):
            plain = plain_states(tiny, prompts[number], layer)
            np.testing.assert_allclose(means[place, 0].numpy(), plain[-1], atol=2e-4)
            aspect = plain[prompts[number].positions(Role.aspect_again)].mean(0)
            np.testing.assert_allclose(means[place, 1].numpy(), aspect, atol=2e-4)


@pytest.mark.parametrize("pooling", list(Pooling))
def test_answers_are_those_of_scikit_learns_regression(small, examples, prompts, labels, pooling) -> None:
    adapted, fitted = probed(small, examples, Probe(layers=[1], poolings=[pooling], l2=[0.05]))
    assert adapted.count() == 3 * (32 + 1)
    rows = []
    for prompt in prompts:
        plain = plain_states(small, prompt, 1)
        rows.append(plain[-1] if pooling is Pooling.last else plain[prompt.positions(Role.aspect_again)].mean(0))
    states, gold = StandardScaler().fit_transform(rows), [p.example.label for p in prompts]
    # An intercept that costs as little there: a column of tens, whose weight is penalised.
    columns = np.hstack([states, np.full((len(states), 1), 10.0)])
    model = LogisticRegression(C=1 / (len(states) * 0.05), fit_intercept=False, tol=1e-9, max_iter=5000)
    expected = model.fit(columns, gold).predict_log_proba(columns)
    order = [list(model.classes_).index(label) for label in ABSC.labels]
    scores = log_probabilities(adapted, prompts, labels, batch_tokens=400)
    np.testing.assert_allclose(scores, expected[:, order], atol=2e-3, rtol=2e-3)
    assert fitted.history[0]["loss"] == pytest.approx(fitted.history[0]["dev_log_loss"], abs=1e-4)
    assert (fitted.history[0]["layer"], fitted.history[0]["l2"]) == (1, 0.05)


def test_the_block_with_the_least_development_loss_is_chosen(small, examples) -> None:
    losses = {}
    for layer in range(3):
        _, fitted = probed(small, examples, Probe(layers=[layer], poolings=[Pooling.aspect]))
        losses[layer] = fitted.history[0]["dev_log_loss"]
    adapted, fitted = probed(small, examples, Probe(poolings=[Pooling.aspect]))
    best = min(losses, key=losses.__getitem__)
    assert (adapted.head.layer, adapted.head.pooling) == (best, Pooling.aspect)
    assert fitted.history[0]["dev_log_loss"] == pytest.approx(losses[best], abs=1e-4)


def test_only_lower_blocks_are_run_and_the_model_stays(small, examples, prompts, labels, monkeypatch) -> None:
    adapted, _ = probed(small, examples, Probe(layers=[0]))
    assert not list(changed_elsewhere(adapted, small.model))
    monkeypatch.setattr(adapted.model.model.layers[1], "forward", lambda *given, **options: 1 / 0)
    log_probabilities(adapted, prompts, labels, batch_tokens=400)


def test_an_export_answers_as_in_memory(small, examples, prompts, labels, about, tmp_path: Path) -> None:
    adapted, _ = probed(small, examples, Probe())
    write_adapter(adapted, tmp_path / "probe", about(adapted), "card")
    again = remade(tmp_path / "probe", small)
    assert (again.head.layer, again.head.pooling) == (adapted.head.layer, adapted.head.pooling)
    first, second = (log_probabilities(a, prompts, labels, batch_tokens=400) for a in (adapted, again))
    np.testing.assert_array_equal(first, second)


def test_what_a_head_cannot_do_is_said(small, examples) -> None:
    adapted, _ = probed(small, examples, Probe(layers=[0]))
    rng = np.random.default_rng(0)
    assert perplexity(adapted, small.tokenizer, ["A river has two banks."], draws=10, rng=rng) is None
    with pytest.raises(ModelError, match="no explanation of a head's answers"):
        explain(Classifier(small, adapted, ABSC.prompt(), ABSC), examples[0])
    with pytest.raises(PlanError, match="layers: 3; the model has layers 0 to 2"):
        adapt(Context.of(small), Probe(layers=[3]), None)
    with pytest.raises(SettingsError, match="to choose from"):
        Probe(l2=[0.0])


@pytest.mark.slow
def test_learns_thirty_two_answers_by_heart(bundled) -> None:
    examples = absa_edit.read("laptop-sample").train.examples[:32]
    _, fitted = probed(bundled, examples, Probe(layers=[7], l2=[1e-3]))
    assert fitted.history[0]["dev_accuracy"] >= 0.95
