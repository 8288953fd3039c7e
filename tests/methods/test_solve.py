"""Solved edits: what is measured against plain forward passes, and what they change."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from families import sites_in

import absa_edit
from absa_edit.context import Context
from absa_edit.data.neutral import neutral_text, some_paragraphs
from absa_edit.data.sources import Splits
from absa_edit.errors import ModelError, SettingsError
from absa_edit.evaluation.predict import log_probabilities
from absa_edit.evaluation.scoring import development_scores
from absa_edit.export.folder import write_adapter
from absa_edit.export.parity import plain_adapter
from absa_edit.localizers.plan import plan_of
from absa_edit.methods.adapted_model import AdaptedModel, changed_elsewhere
from absa_edit.methods.base import adapt
from absa_edit.methods.logistic import contrasts
from absa_edit.methods.solve import Asked, Matrix, Solve, inputs_of, matrices_of
from absa_edit.model.hooks import edited, entering
from absa_edit.model.loading import LanguageModel
from absa_edit.records import EditPlan, Part, Site
from absa_edit.resampling import label_numbers
from absa_edit.results import Fit
from absa_edit.tasks.absc import ABSC
from absa_edit.training.fitting import fit_method

SITES = [Site(1, Part.attn), Site(1, Part.mlp), Site(2, Part.mlp)]
HEADS = [Site(1, Part.head, 0), Site(1, Part.head, 3), Site(2, Part.mlp)]


def context(lm: LanguageModel, examples) -> Context:
    """One whose development data is its training data."""
    ctx = Context.of(lm, ABSC, examples)
    return replace(ctx, splits=Splits(ctx.splits.train, replace(ctx.splits.train, split="dev"), (), ()))


def plan_for(lm: LanguageModel, sites=SITES) -> EditPlan:
    return plan_of(lm.runner, sites_in(lm.model, sites), 1, "manual")


def solved(lm: LanguageModel, examples, settings: Solve, sites=SITES) -> tuple[AdaptedModel, Fit]:
    ctx = context(lm, examples)
    adapted = adapt(ctx, settings, plan_for(lm, sites))
    prompts, gold = ctx.encode(ctx.splits.dev), label_numbers([e.label for e in examples], ABSC.labels)

    def evaluate() -> dict[str, float]:
        return development_scores(log_probabilities(adapted, prompts, ctx.labels, batch_tokens=400), gold)

    return adapted, fit_method(ctx, settings, adapted, evaluate)


def asked(lm: LanguageModel, examples) -> tuple[AdaptedModel, Asked]:
    ctx = context(lm, examples)
    adapted = adapt(ctx, Solve(), plan_for(lm))
    found = matrices(lm, adapted)
    return adapted, Asked(ctx, adapted, ctx.splits.train, found, [None] * len(found))


def matrices(lm: LanguageModel, adapted: AdaptedModel) -> list[Matrix]:
    return matrices_of(adapted, inputs_of(lm.runner, adapted.plan))


def test_what_is_seen_equals_plain_forward_passes(tiny, examples, prompts, labels) -> None:
    adapted, seen = asked(tiny, examples)
    scores, features = seen.look()
    words = [word[0] for word in labels.values()]
    for number, prompt in enumerate(prompts):
        inputs = []
        for target in adapted.plan.targets:
            with entering(tiny.runner.module(target.site)) as states, torch.no_grad():
                logits = tiny.model(torch.tensor([prompt.ids])).logits[0, -1, words]
            inputs.append(states[-1].flatten(0, -2)[-1])
        np.testing.assert_allclose(scores[number], logits.numpy(), atol=2e-4)
        for state, feature in zip(inputs, features, strict=True):
            np.testing.assert_allclose(feature[number], state.numpy(), atol=2e-4)


def test_slopes_are_the_derivatives_of_plain_forward_passes(tiny, examples, prompts, labels) -> None:
    adapted, seen = asked(tiny, examples)
    slopes = seen.slopes(np.random.default_rng(0))
    words, basis = [word[0] for word in labels.values()], torch.from_numpy(contrasts(3)).float()
    for target, slope in zip(adapted.plan.targets, slopes, strict=True):
        move = torch.zeros(slope.shape[1], requires_grad=True)
        total = torch.zeros(2)
        for prompt in prompts:
            last = torch.zeros(len(prompt.ids), 1)
            last[-1] = 1
            with edited(
                tiny.runner.module(target.site), lambda out, last=last, move=move: out + (last * move).view_as(out)
            ):
                total = total + tiny.model(torch.tensor([prompt.ids])).logits[0, -1, words] @ basis / len(prompts)
        expected = torch.stack([torch.autograd.grad(t, move, retain_graph=True)[0] for t in total])
        np.testing.assert_allclose(slope, expected.numpy(), atol=2e-4, rtol=2e-3)


def test_counts_by_hand(small, examples) -> None:
    """Rank 2: the tiny Llama is 32 wide, its MLP 48; a head reads 8 columns, and heads of a layer share B."""
    ctx = context(small, examples)
    assert adapt(ctx, Solve(), plan_for(small)).count() == 2 * ((32 + 32) + (48 + 32) + (48 + 32))
    assert adapt(ctx, Solve(), plan_for(small, HEADS)).count() == 2 * ((16 + 32) + (48 + 32))
    assert adapt(ctx, Solve(), plan_for(small)).touched == 32 * 32 + 2 * 48 * 32
    assert adapt(ctx, Solve(), plan_for(small, HEADS)).touched == 16 * 32 + 48 * 32


def test_the_loss_falls_and_nothing_else_moves(tiny, examples, prompts, labels) -> None:
    adapted, fitted = solved(tiny, examples, Solve(l2=[0.1, 0.01]))
    before = development_scores(
        log_probabilities(AdaptedModel("base", tiny.model), prompts, labels, batch_tokens=400),
        label_numbers([e.label for e in examples], ABSC.labels),
    )
    assert fitted.history[fitted.best_epoch - 1]["dev_log_loss"] < before["dev_log_loss"] - 0.05
    assert fitted.best_macro_f1 >= before["dev_macro_f1"]
    assert not list(changed_elsewhere(adapted, tiny.model))


def test_the_first_order_is_met_by_small_edits(small, examples) -> None:
    """With much l2 the edit is small, and moves the logits as the regression says."""
    adapted, _ = solved(small, examples, Solve(rounds=1, l2=[30.0]))
    _, seen = asked(small, examples)
    found = matrices(small, adapted)
    before, features = seen.look()
    after, _ = Asked(context(small, examples), adapted, context(small, examples).splits.train, found, [None] * 3).look()
    moved, expected = (after - before) @ contrasts(3), np.zeros((len(examples), 2))
    for matrix, feature, slope in zip(found, features, seen.slopes(np.random.default_rng(0)), strict=True):
        expected += feature @ (matrix.down.T.numpy() @ (matrix.up.T.numpy() @ slope.T))
    assert np.corrcoef(moved.ravel(), expected.ravel())[0, 1] > 0.9 and np.abs(moved).max() > 1e-3


def test_heads_answer_to_their_own_columns(small, examples) -> None:
    adapted, _ = solved(small, examples, Solve(rounds=1), HEADS)
    weight = adapted.model.get_parameter("model.layers.1.self_attn.o_proj.lora_A.default.weight")
    assert weight.unflatten(1, (4, 8)).ne(0).any(2).any(0).tolist() == [True, False, False, True]


def test_neutral_text_is_left_alone(small, examples) -> None:
    """Of what enters a matrix there, a silent edit sees a hundredth by squared length, at most."""
    plain, silent = (solved(small, examples, Solve(rounds=1, neutral=neutral))[0] for neutral in (False, True))
    for number, site in enumerate(t.site for t in plain.plan.targets):
        with entering(small.runner.module(site)) as states, torch.no_grad():
            for text in some_paragraphs(neutral_text(), 2000, Context.of(small).rng("silent directions")):
                small.model(torch.tensor([small.tokenizer(text)["input_ids"]]))
        inputs = torch.cat([rows[0] for rows in states])
        downs = [matrices(small, adapted)[number].down for adapted in (plain, silent)]
        seen = [float((inputs @ down.T).square().sum() / down.square().sum()) for down in downs]
        most = 0.01 * float(inputs.square().sum())
        assert seen[0] > most > seen[1] > 0


def test_an_export_answers_as_in_memory(small, examples, prompts, labels, about, tmp_path: Path) -> None:
    adapted, _ = solved(small, examples, Solve(rounds=1))
    write_adapter(adapted, tmp_path / "adapter", about(adapted), "card")
    again = plain_adapter(tmp_path / "adapter", small.model)
    first, second = (log_probabilities(a, prompts, labels, batch_tokens=400) for a in (adapted, again))
    np.testing.assert_allclose(first, second, atol=1e-5)


def test_label_words_that_begin_alike_are_refused(small, examples, monkeypatch) -> None:
    ctx = context(small, examples)
    monkeypatch.setattr(Context, "labels", {"positive": (5, 6), "negative": (5, 7), "neutral": (8,)})
    with pytest.raises(ModelError, match="two words begin with the same token"):
        adapt(ctx, Solve(), plan_for(small))


@pytest.mark.parametrize("wrong", [{"rounds": 0}, {"examples": 0}, {"l2": []}, {"l2": [0.1, 0.0]}])
def test_settings_that_make_no_sense_are_refused(wrong) -> None:
    with pytest.raises(SettingsError):
        Solve(**wrong)


@pytest.mark.slow
def test_learns_thirty_two_answers_by_heart(bundled) -> None:
    examples = absa_edit.read("laptop-sample").train.examples[:32]
    sites = [Site(layer, part) for layer in range(8, 12) for part in (Part.attn, Part.mlp)]
    _, fitted = solved(bundled, examples, Solve(rounds=3, l2=[1e-3, 1e-4, 1e-5, 1e-6]), sites)
    assert fitted.history[fitted.best_epoch - 1]["dev_accuracy"] >= 0.95
