"""Drawn answers: the same under a seed, and where a model is certain, those that comparing the label words gives."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from contexts import adapt

from absa_edit.evaluation.predict import log_probabilities
from absa_edit.evaluation.sampled import NEW_TOKENS, sampled_answers, sampled_score
from absa_edit.localizers.plan import plan_of
from absa_edit.methods.adapted_model import AdaptedModel
from absa_edit.methods.low_rank_edit import Edit
from absa_edit.methods.zero_shot import ZeroShot
from absa_edit.records import Part, Role, Site
from absa_edit.tasks.absc import ABSC

WORDS = dict(zip(ABSC.labels, ABSC.words, strict=True))


def certain(adapted: AdaptedModel, labels, end: int) -> None:
    """Make the model write its likeliest label word, then end."""
    words = torch.tensor([word[0] for word in labels.values()])

    def surely(_model, _args, given, output):
        logits = output.logits
        if given["input_ids"][0, -1] in words:
            logits[:, -1, end] += 1e6
        else:
            logits[:, -1] *= 1e3
            logits[:, -1, words] += 1e6
        return output

    adapted.model.register_forward_hook(surely, with_kwargs=True)


@pytest.fixture(params=[False, True], ids=["plain", "representation"])
def adapted(request, bundled) -> AdaptedModel:
    if not request.param:
        return adapt(bundled.model, ZeroShot(), None, seed=0)
    plan = plan_of(bundled.runner, [Site(4, Part.attn)], 2, "manual")
    adapted = adapt(bundled.model, Edit(representation=True), plan, seed=0)
    with torch.no_grad():
        adapted.representation.edits[0].source.bias.add_(20)
    return adapted


def test_a_seed_draws_the_same(adapted, bundled, prompts) -> None:
    draw = {seed: sampled_answers(adapted, prompts[:4], bundled.tokenizer, seed=seed) for seed in (1, 2)}
    state = torch.get_rng_state()
    assert sampled_answers(adapted, prompts[:4], bundled.tokenizer, seed=1) == draw[1] != draw[2]
    assert torch.equal(torch.get_rng_state(), state), "nobody else's draws move"


def test_a_certain_model_writes_what_comparing_the_words_says(adapted, bundled, prompts, labels) -> None:
    likeliest = log_probabilities(adapted, prompts, labels, batch_tokens=400).argmax(1)
    certain(adapted, labels, bundled.tokenizer.eos_token_id)
    answers = sampled_answers(adapted, prompts, bundled.tokenizer, seed=0)
    assert answers == [ABSC.labels[i] for i in likeliest]
    drawn = sampled_score(prompts, answers, WORDS, draws=100, rng=np.random.default_rng(0))
    right = [ABSC.labels[i] == p.example.label for i, p in zip(likeliest, prompts, strict=True)]
    assert (drawn.accuracy.value, drawn.accuracy.n, drawn.no_label) == (sum(right) / len(right), len(prompts), 0)


@torch.no_grad()
@pytest.mark.parametrize("position", [Role.aspect_again, Role.last])
def test_an_edit_of_the_prompt_holds_while_the_answer_is_written(bundled, prompts, position) -> None:
    plan = plan_of(bundled.runner, [Site(4, Part.attn)], 2, "manual")
    adapted = adapt(bundled.model, Edit(representation=True, position=position), plan, seed=0)
    adapted.representation.edits[0].source.bias.add_(20)
    ids = torch.tensor([prompts[0].ids])
    with adapted.on(prompts[0]):
        made = adapted.model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW_TOKENS, do_sample=False, eos_token_id=None
        )
        for length in range(ids.shape[1], made.shape[1]):  # without a cache
            logits = adapted.model(input_ids=made[:, :length], use_cache=False).logits[0, -1]
            assert logits.argmax() == made[0, length]
    plain = copy.deepcopy(replace(adapted, representation=None))
    assert plain.model(input_ids=made[:, :-1]).logits[0, -1].sub(logits).abs().max() > 1e-3, "the edit does something"


def test_what_is_no_label_is_wrong(prompts) -> None:
    answers = [p.example.label for p in prompts[:4]] + ["Positive", "positive .", "", "positive"]
    drawn = sampled_score(prompts, answers, WORDS, draws=50, rng=np.random.default_rng(0))
    right = 4 + (prompts[7].example.label == "positive")
    assert (drawn.accuracy.value, drawn.no_label) == (right / 8, 3)
    assert drawn.accuracy.low <= drawn.accuracy.value <= drawn.accuracy.high
