"""Logits of answers against the plain model's, one sequence at a time."""

from __future__ import annotations

import copy

import pytest
import torch
from contexts import adapt

from absa_edit.localizers.plan import plan_of
from absa_edit.methods.adapted_model import AdaptedModel
from absa_edit.methods.lora import Lora
from absa_edit.methods.low_rank_edit import Edit
from absa_edit.methods.settings import MethodSettings
from absa_edit.model.answer_logits import AnswerLogits
from absa_edit.model.block_runner import BlockRunner
from absa_edit.records import Part, Role, Site

WORDS = ((11, 40, 41), (12,), (13, 50))
CHOSEN = [6, 0, 1, 4, 5, 0]
"""Two aspects of a sentence, an example twice, others."""


def words(prompts) -> list[tuple[int, ...]]:
    return [WORDS[i % 3] for i in range(len(prompts))]


def plain(adapted: AdaptedModel, prompts, chosen=CHOSEN) -> torch.Tensor:
    every = words(prompts)
    found = []
    for i in chosen:
        with adapted.on(prompts[i]):
            logits = adapted.model(input_ids=torch.tensor([[*prompts[i].ids, *every[i][:-1]]])).logits[0]
        found.append(logits[len(prompts[i].ids) - 1 :])
    return torch.cat(found)


def trained(lm, method: MethodSettings, layers=(1, 2)) -> AdaptedModel:
    """A method whose adapters and edits are not 0."""
    plan = plan_of(lm.runner, [Site(layer, Part.attn) for layer in layers], 2, "manual")
    adapted = adapt(lm.model, method, plan, seed=0)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in adapted.trainable().items():
        if "lora_B" in name or "source" in name:
            parameter.data.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return adapted


@pytest.mark.every_family
@torch.no_grad()
@pytest.mark.parametrize("position", [Role.aspect_again, Role.aspect, Role.last])
def test_equals_the_plain_model(tiny, prompts, position) -> None:
    adapted = trained(tiny, Edit(lr=1e-3, representation=True, position=position), layers=(0, 1, 2))
    found = adapted.answers(prompts, words(prompts)).logits(CHOSEN)
    expected = plain(adapted, prompts)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)
    assert expected.std() > 0.1
    assert not torch.allclose(expected, plain(trained(tiny, Edit(lr=1e-3)), prompts), atol=1e-2)


@torch.no_grad()
def test_does_not_depend_on_the_batch(small, prompts) -> None:
    answers = AnswerLogits(BlockRunner(small.model), [p.ids for p in prompts], words(prompts))
    together = answers.logits(range(len(prompts)))
    alone = torch.cat([answers.logits([i]) for i in range(len(prompts))])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    backwards = torch.cat([answers.logits([i, 0])[: len(words(prompts)[i])] for i in range(len(prompts))])
    torch.testing.assert_close(together, backwards, atol=1e-5, rtol=1e-5)


@pytest.mark.every_family
def test_gradients_are_the_plain_models(tiny, prompts) -> None:
    adapted = trained(tiny, Lora(lr=1e-3, rank=2))
    gradients = []
    for logits in (adapted.answers(prompts, words(prompts)).logits(CHOSEN), plain(adapted, prompts)):
        logits.log_softmax(-1)[:, 7].sum().backward()
        gradients.append({n: p.grad.clone() for n, p in adapted.trainable().items()})
        for parameter in adapted.trainable().values():
            parameter.grad = None
    for name, gradient in gradients[1].items():
        scale = float(gradient.abs().max()) + 1e-6
        torch.testing.assert_close(gradients[0][name] / scale, gradient / scale, atol=1e-4, rtol=0)


def test_asked_tokens_are_the_answers(small, prompts) -> None:
    answers = AnswerLogits(BlockRunner(small.model), [p.ids for p in prompts[:3]], WORDS)
    asked = answers.asked([2, 0])
    assert asked.sequence.tolist() == [0, 0, 1, 1, 1]
    assert asked.target.tolist() == [13, 50, 11, 40, 41]
    assert asked.position.tolist() == [len(prompts[i].ids) - 1 + k for i, k in ((2, 0), (2, 1), (0, 0), (0, 1), (0, 2))]
    torch.testing.assert_close(asked.share, torch.tensor([1 / 2, 1 / 2, 1 / 3, 1 / 3, 1 / 3]))


@torch.no_grad()
def test_leaves_the_model_as_it_was(small, prompts) -> None:
    modules = dict(small.model.named_modules())
    before = small.model.config._attn_implementation
    AnswerLogits(BlockRunner(small.model), [p.ids for p in prompts], words(prompts)).logits([0, 1])
    assert dict(small.model.named_modules()) == modules
    assert small.model.config._attn_implementation == before


@torch.no_grad()
def test_float16_weights_run_in_mixed_precision(small, prompts) -> None:
    half = copy.deepcopy(small.model).half()
    plain, mixed = (AnswerLogits(BlockRunner(m), [p.ids for p in prompts], words(prompts)) for m in (small.model, half))
    with torch.autocast("cpu", torch.bfloat16):
        found = mixed.logits(CHOSEN)
    torch.testing.assert_close(found.float(), plain.logits(CHOSEN), atol=0.2, rtol=0.05)
