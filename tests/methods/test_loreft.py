"""LoReFT at several tokens of the prompt: against plain forward passes with hooks, trained, exported, refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from contexts import adapt
from runs import execute, small_run

import absa_edit
from absa_edit.data.prompts import Prompt, encode
from absa_edit.data.settings import PromptSettings
from absa_edit.data.shots import preamble_of
from absa_edit.errors import AbsaEditError, DataError, PlanError, SettingsError
from absa_edit.evaluation.predict import BaseStates, log_probabilities, scored
from absa_edit.localizers.plan import plan_of
from absa_edit.methods.adapted_model import AdaptedModel
from absa_edit.methods.loreft import Reft, tokens
from absa_edit.methods.low_rank_edit import Edit
from absa_edit.methods.reft import Place
from absa_edit.model.hooks import edited
from absa_edit.model.loading import LanguageModel
from absa_edit.records import Part, Role, Site
from absa_edit.tasks.absc import ABSC
from absa_edit.training.loss import AnswerLoss

WORDS = {"positive": (11, 40, 41), "negative": (12,), "neutral": (13, 50)}
CHOSEN = [6, 0, 1, 4, 5, 0]
"""Two aspects of a sentence, an example twice, others."""
SHAPES = {
    "ends": Reft(),
    "more": Reft(positions="f3+l2"),
    "tied": Reft(positions="f2+l3", tied=True),
    "first": Reft(positions="f4"),
    "last": Reft(positions="l2"),
    "role": Reft(positions="aspect_again"),
}


def moved(adapted: AdaptedModel) -> AdaptedModel:
    """With edits that are not 0, each another."""
    generator = torch.Generator().manual_seed(1)
    for name, parameter in adapted.trainable().items():
        if "source" in name:
            parameter.data.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return adapted


def reft(lm: LanguageModel, settings: Reft) -> AdaptedModel:
    return moved(adapt(lm.model, settings, None, seed=0))


def answer(prompt: Prompt) -> tuple[int, ...]:
    return WORDS[prompt.example.label]


def by_hand(adapted: AdaptedModel, settings: Reft, prompt: Prompt) -> torch.Tensor:
    """Logits at the answer, the formula written into the states of one plain forward pass."""
    length, edit = len(prompt.ids), adapted.representation
    assert edit is not None
    if settings.positions == "aspect_again":
        groups = [[prompt.positions(Role.aspect_again)[-1]]]
    else:
        counts = {part[0]: int(part[1:]) for part in settings.positions.split("+")}
        groups = [list(range(counts.get("f", 0))), list(range(length - counts.get("l", 0), length))]
        groups = [group for group in groups if group]
    if settings.tied:
        groups = [[*groups[0], *groups[1]]]
    hooks = []
    for place, group in zip(edit.places, groups, strict=True):
        for layer, loreft in edit.by_layer(place).items():

            def change(hidden: torch.Tensor, group=group, loreft=loreft) -> torch.Tensor:
                out = hidden.clone()
                r, w, b = loreft.rotation(), loreft.source.weight, loreft.source.bias
                for p in group:
                    h = hidden[0, p]
                    out[0, p] = h + r.T @ (w @ h + b - r @ h)
                return out

            hooks.append(edited(adapted.runner.blocks[layer], change))
    for hook in hooks:
        hook.__enter__()
    logits = adapted.model(input_ids=torch.tensor([[*prompt.ids, *answer(prompt)[:-1]]]), use_cache=False).logits[0]
    for hook in hooks:
        hook.__exit__(None, None, None)
    return logits[length - 1 :]


@torch.no_grad()
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_plain_passes_with_the_formula(small, prompts, shape) -> None:
    check_answers(small, prompts, SHAPES[shape])


@torch.no_grad()
def test_first_and_last_tokens_of_every_family(tiny, prompts) -> None:
    check_answers(tiny, prompts, SHAPES["more"])


def check_answers(lm: LanguageModel, prompts, settings: Reft) -> None:
    adapted = reft(lm, settings)
    expected = torch.cat([by_hand(adapted, settings, prompts[i]) for i in CHOSEN])
    found = adapted.answers(prompts, [answer(p) for p in prompts]).logits(CHOSEN)
    torch.testing.assert_close(found, expected, atol=5e-5, rtol=1e-4)
    base = adapted.model(input_ids=torch.tensor([prompts[6].ids])).logits[0, -1]
    assert (expected[0] - base).abs().max() > 1e-2, "the edit does something"
    with adapted.on(prompts[4]):
        ids = torch.tensor([[*prompts[4].ids, *answer(prompts[4])[:-1]]])
        hooked = adapted.model(input_ids=ids, use_cache=False).logits[0, len(prompts[4].ids) - 1 :]
    torch.testing.assert_close(hooked, by_hand(adapted, settings, prompts[4]), atol=5e-5, rtol=1e-4)


@pytest.mark.parametrize("located", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_losses_and_gradients_with_cached_states_are_those_of_plain_passes(small, prompts, shape, located) -> None:
    settings = replace(SHAPES[shape], located=located)
    plan = plan_of(small.runner, [Site(1, Part.attn), Site(2, Part.mlp)], 2, "manual") if located else None
    adapted = moved(adapt(small.model, settings, plan, seed=0))
    labels = {label: WORDS[label] for label in ABSC.labels}
    loss = AnswerLoss(adapted, prompts, labels, cache_gib=1.0)
    assert loss.frozen is not None and loss.frozen.start == (2 if located else 1)
    among = torch.tensor(sorted({token for word in labels.values() for token in word}))
    expected = torch.zeros(())
    for i in (4, 0, 5, 1):
        target = torch.searchsorted(among, torch.tensor(answer(prompts[i])))
        logits = by_hand(adapted, settings, prompts[i])[:, among]
        expected = expected + torch.nn.functional.cross_entropy(logits, target)
    totals, gradients = (loss([4, 0, 5, 1]), expected), []
    torch.testing.assert_close(*totals, atol=1e-4, rtol=1e-5)
    for total in totals:
        total.backward()
        gradients.append({name: p.grad.clone() for name, p in adapted.trainable().items()})
        for parameter in adapted.trainable().values():
            parameter.grad = None
    for name, gradient in gradients[1].items():
        scale = float(gradient.abs().max()) + 1e-6
        torch.testing.assert_close(gradients[0][name] / scale, gradient / scale, atol=2e-3, rtol=0)
        assert gradient.abs().max() > 0, "nothing trains that nothing reads"


@torch.no_grad()
@pytest.mark.parametrize("shape", SHAPES)
def test_scores_after_shots_and_with_states_that_methods_share(small, examples, tokenizer, labels, shape) -> None:
    """Shots are computed once for all prompts only where no edit changes them."""
    text = preamble_of(examples[2:3], ABSC.labels, ABSC.prompt())
    after = encode(examples, tokenizer, ABSC.prompt(PromptSettings(preamble=text)))
    adapted = reft(small, SHAPES[shape])
    alone = []
    for prompt in after:
        with adapted.on(prompt):
            row = adapted.model(input_ids=torch.tensor([prompt.ids])).logits[0, -1].log_softmax(-1)
        alone.append(row[[word[0] for word in labels.values()]].log_softmax(-1))
    found = log_probabilities(adapted, after, labels, batch_tokens=300)
    np.testing.assert_allclose(found, torch.stack(alone), atol=1e-4)
    assert bool(scored(adapted, after, labels).tree.before) != ("f" in SHAPES[shape].positions.replace("first", ""))
    base = BaseStates(labels, torch.float32, [1], 300, 1.0)
    base.of(adapt(small.model, Edit(weights=False, representation=True), _plan(small), seed=0), "test", after)
    frozen = base.of(adapted, "test", after)
    assert frozen is not None
    np.testing.assert_allclose(
        log_probabilities(adapted, after, labels, batch_tokens=300, frozen=frozen), torch.stack(alone), atol=1e-4
    )


def _plan(lm: LanguageModel):
    return plan_of(lm.runner, [Site(1, Part.attn)], 2, "manual")


@torch.no_grad()
def test_an_edit_of_the_first_tokens_holds_while_the_answer_is_written(small, prompts) -> None:
    adapted = reft(small, Reft(positions="f2+l2"))
    ids = torch.tensor([prompts[0].ids])
    with adapted.on(prompts[0]):
        made = adapted.model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=4, do_sample=False, eos_token_id=None
        )
        for length in range(ids.shape[1], made.shape[1]):  # without a cache
            logits = adapted.model(input_ids=made[:, :length], use_cache=False).logits[0, -1]
            assert logits.argmax() == made[0, length]


def test_the_same_as_a_representation_edit_alone_at_its_role(small, prompts, labels) -> None:
    alone = moved(adapt(small.model, Edit(weights=False, representation=True), _plan(small), seed=0))
    here = moved(adapt(small.model, Reft(positions="aspect_again", located=True), _plan(small), seed=0))
    assert alone.count() == here.count() and alone.start == here.start and here.prefixes_known
    scores = [log_probabilities(model, prompts, labels, batch_tokens=300) for model in (alone, here)]
    np.testing.assert_array_equal(*scores)


@pytest.mark.parametrize(
    ("positions", "places"),
    [
        ("f1+l1", [Place((), first=1), Place((), last=1)]),
        ("f12+l3", [Place((), first=12), Place((), last=3)]),
        ("f2", [Place((), first=2)]),
        ("l7", [Place((), last=7)]),
        ("last", [Place((), Role.last)]),
        *((wrong, []) for wrong in ("", "+", "f", "f0", "l0+f1", "f1l1", "f1+", "+l1", "aspects", "f1+l1+l2")),
    ],
)
def test_what_positions_say(positions, places) -> None:
    assert tokens(positions) == places
    if not places:
        with pytest.raises(SettingsError, match=r"expected f<n>, l<n> or f<n>\+l<n> .* or a role \(instruction, "):
            Reft(positions=positions)


def test_count_and_layers_by_hand(small) -> None:
    """The tiny Llama: 32 wide, three layers; of the last block the last token's state alone is read."""
    one_edit = 3 * (2 * 32 + 1)
    counts = {"f1+l1": 2 + 3, "f2": 2, "l2": 3, "aspect": 2, "last": 3}
    for positions, edits in counts.items():
        assert adapt(small.model, Reft(positions=positions, rank=3), None, seed=0).count() == edits * one_edit
    assert adapt(small.model, Reft(rank=3, tied=True), None, seed=0).count() == 3 * one_edit
    located = adapt(small.model, Reft(rank=3, located=True), _plan(small), seed=0)
    assert located.count() == 2 * one_edit and located.plan == _plan(small) and located.start == 2


def test_what_cannot_be_is_refused(small, prompts) -> None:
    with pytest.raises(SettingsError, match=r"locate=random goes with method\.<name>\.located=true"):
        Reft(locate="random")
    with pytest.raises(PlanError, match="rank=33: expected 1 to 32"):
        adapt(small.model, Reft(rank=33), None, seed=0)
    last = plan_of(small.runner, [Site(2, Part.attn)], 2, "manual")
    with pytest.raises(PlanError, match="nothing reads the last block at f1"):
        adapt(small.model, Reft(positions="f1", located=True), last, seed=0)
    with pytest.raises(PlanError, match="needs a plan"):
        adapt(small.model, Reft(located=True), None, seed=0)
    many = adapt(small.model, Reft(positions="f90+l90", tied=True), None, seed=0)
    with pytest.raises(DataError, match=r"its prompt has \d+ tokens, the representation edit acts at 180"):
        many.answers(prompts, [(1,)] * len(prompts))


def test_a_run_exports_it_for_this_package(tmp_path: Path) -> None:
    methods = {"edit": Edit(), "reft": Reft(lr=5e-3), "located": Reft(located=True, locate="random", tied=True)}
    chosen = small_run(tmp_path / "out", method=methods)
    chosen = replace(chosen, export=replace(chosen.export, method="reft"))
    run, record, _ = execute(chosen)
    assert record.methods["reft"].plan is None and record.methods["reft"].lr == 5e-3
    located = record.methods["located"].plan
    assert located is not None and len(located.layers()) == 2
    assert record.export and (record.export.merged, record.export.agreement) == (None, 1.0)
    rows = [json.loads(row) for row in (run.folder / "methods/reft/predictions.jsonl").read_text().splitlines()]
    loaded = absa_edit.load(run.folder)
    assert loaded.adapted.representation is not None and loaded.adapted.representation.first == 1
    found = loaded.answer([e for test in run.splits.tests for e in test.examples])
    for row, ours in zip(rows, found, strict=True):
        assert list(row["probabilities"].values()) == pytest.approx(list(ours.values()), abs=1e-4)
    with pytest.raises(AbsaEditError, match="positions"):
        replace(methods["reft"], positions="f1,l1")
