"""The loss against cross entropy by hand, with and without cached states."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from conftest import tiny_model
from contexts import adapt, context
from families import sites_in
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from absa_edit.errors import ModelError
from absa_edit.localizers.plan import plan_of
from absa_edit.methods.adapted_model import AdaptedModel
from absa_edit.methods.full import Full
from absa_edit.methods.lora import Lora
from absa_edit.methods.low_rank_edit import Edit
from absa_edit.records import Part, Site
from absa_edit.tasks.absc import Polarity
from absa_edit.training.loss import AnswerLoss
from absa_edit.training.settings import FitSettings, Softmax

SITES = [Site(1, Part.attn), Site(2, Part.mlp)]
SEVERAL = {Polarity.positive: (11, 40, 41), Polarity.negative: (12,), Polarity.neutral: (13, 50)}


def edited(lm, **settings: object) -> AdaptedModel:
    """An edit whose deltas are not 0."""
    plan = plan_of(lm.runner, sites_in(lm.model, SITES), 2, "manual")
    adapted = adapt(lm.model, Edit(lr=1e-3, **settings), plan, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in adapted.trainable().items():
            if "lora_B" in name or "source" in name:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return adapted


def by_hand(adapted: AdaptedModel, prompts, labels, among: list[int] | None = None) -> torch.Tensor:
    """Sum over examples of the mean token loss, one full pass an example; other tokens than `among` have no part."""
    total = torch.zeros(())
    for prompt in prompts:
        answer = labels[prompt.example.label]
        with adapted.on(prompt):
            logits = adapted.model(input_ids=torch.tensor([[*prompt.ids, *answer]])).logits[0].float()
        if among is not None:
            others = torch.ones(logits.shape[1], dtype=torch.bool)
            others[among] = False
            logits = logits.masked_fill(others, -torch.inf)
        scores = logits.log_softmax(-1)
        at = len(prompt.ids) - 1
        total = total - sum(scores[at + k, token] for k, token in enumerate(answer)) / len(answer)
    return total


@pytest.mark.parametrize("several", [False, True])
def test_equals_cross_entropy_by_hand(tiny, prompts, labels, several) -> None:
    words = SEVERAL if several else labels
    adapted = edited(tiny, representation=several)
    loss = AnswerLoss(adapted, prompts, words, cache_gib=1.0, softmax=Softmax.vocabulary)
    assert loss.frozen is not None
    chosen = [4, 0, 5]
    with torch.no_grad():
        expected = by_hand(adapted, [prompts[i] for i in chosen], words)
        torch.testing.assert_close(loss(chosen), expected, atol=2e-3, rtol=1e-5)


@pytest.mark.parametrize("several", [False, True])
def test_among_the_label_words_equals_cross_entropy_by_hand(tiny, prompts, labels, several) -> None:
    words = SEVERAL if several else labels
    adapted = edited(tiny, representation=several)
    loss = AnswerLoss(adapted, prompts, words, cache_gib=1.0)
    among = [token for word in words.values() for token in word]
    chosen = [4, 0, 5]
    with torch.no_grad():
        expected = by_hand(adapted, [prompts[i] for i in chosen], words, among)
        torch.testing.assert_close(loss(chosen), expected, atol=2e-3, rtol=1e-5)
        assert loss(chosen) < AnswerLoss(adapted, prompts, words, cache_gib=1.0, softmax=Softmax.vocabulary)(chosen)


class _Vocabulary(TorchDispatchMode):
    """Names of the operations that read or make something as long as the vocabulary."""

    def __init__(self, words: int) -> None:
        super().__init__()
        self.words = words
        self.found: set[str] = set()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        out = operation(*args, **(kwargs or {}))
        tensors = [t for t in tree_leaves((args, kwargs, out)) if isinstance(t, torch.Tensor)]
        if any(self.words in t.shape for t in tensors):
            self.found.add(operation.overloadpacket.__name__)
        return out


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", ["gemma3", "llama"])
@pytest.mark.parametrize("way", ["edit", "lora"])
def test_among_the_label_words_a_step_only_looks_rows_of_the_vocabulary_up(
    family, way, precision, tokenizer, prompts, labels
) -> None:
    lm = tiny_model(family, tokenizer)
    adapted = edited(lm) if way == "edit" else adapt(lm.model, Lora(lr=1e-3), None, seed=0)

    def operations(softmax: Softmax) -> set[str]:
        loss = AnswerLoss(adapted, prompts, labels, cache_gib=1.0, softmax=softmax)
        rounded = torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16)
        loss([0, 1])  # what is kept from the first step on
        with _Vocabulary(lm.model.config.vocab_size) as vocabulary:
            with rounded:
                total = loss([0, 1])
            total.backward()
        return vocabulary.found

    assert operations(Softmax.labels) == {"embedding", "index"}
    assert "mm" in operations(Softmax.vocabulary)


@pytest.mark.parametrize("method", [Lora(lr=1e-3), Full(lr=1e-3)])
def test_methods_that_start_at_the_first_block_cache_nothing(small, prompts, labels, method) -> None:
    adapted = adapt(small.model, method, None, seed=0)
    loss = AnswerLoss(adapted, prompts, labels, cache_gib=1.0, softmax=Softmax.vocabulary)
    assert loss.frozen is None
    torch.testing.assert_close(loss([1, 2]), by_hand(adapted, prompts[1:3], labels), atol=1e-3, rtol=1e-5)


def gradients(adapted: AdaptedModel, loss: AnswerLoss, batches: list[list[int]]) -> dict[str, torch.Tensor]:
    for parameter in adapted.trainable().values():
        parameter.grad = None
    for batch in batches:
        loss(batch).backward()
    return {n: p.grad.clone() for n, p in adapted.trainable().items()}


@pytest.mark.parametrize("representation", [False, True])
def test_micro_batches_give_the_same_gradient(small, prompts, labels, representation) -> None:
    adapted = edited(small, representation=representation)
    loss = AnswerLoss(adapted, prompts, labels, cache_gib=1.0)
    whole = gradients(adapted, loss, [list(range(8))])
    pieces = gradients(adapted, loss, [[0, 1, 2], [3, 4, 5], [6, 7]])
    for name, gradient in whole.items():
        scale = float(gradient.abs().max()) + 1e-6
        torch.testing.assert_close(pieces[name] / scale, gradient / scale, atol=1e-4, rtol=0)


def test_gradients_equal_those_of_the_plain_pass(tiny, prompts, labels) -> None:
    adapted = edited(tiny, representation=True)
    loss = AnswerLoss(adapted, prompts, labels, cache_gib=1.0, softmax=Softmax.vocabulary)
    cached = gradients(adapted, loss, [[0, 3]])
    for parameter in adapted.trainable().values():
        parameter.grad = None
    by_hand(adapted, [prompts[0], prompts[3]], labels).backward()
    for name, parameter in adapted.trainable().items():
        scale = float(parameter.grad.abs().max()) + 1e-6
        torch.testing.assert_close(cached[name] / scale, parameter.grad / scale, atol=1e-4, rtol=0)


def test_cached_states_on_disk_give_the_same_loss(small, prompts, labels) -> None:
    adapted = edited(small)
    memory, disk = (AnswerLoss(adapted, prompts, labels, cache_gib=gib)(list(range(8))) for gib in (1.0, 0.0))
    assert torch.equal(memory, disk)


def test_a_repeated_example_counts_twice(small, prompts, labels) -> None:
    loss = AnswerLoss(edited(small), prompts, labels, cache_gib=1.0)
    torch.testing.assert_close(loss([1, 1]), 2 * loss([1]), atol=1e-5, rtol=1e-5)
    other = replace(prompts[1], example=replace(prompts[1].example, label=Polarity.neutral))
    changed = AnswerLoss(edited(small), [other], labels, cache_gib=1.0)
    assert abs(float((changed([0]) - loss([1])).detach())) > 1e-3


def test_the_end_of_an_answer_is_learnt_where_asked(small) -> None:
    words = context(small.model).labels
    taught = context(small.model, fit=FitSettings(end=True)).answers_to_learn()
    end = small.tokenizer.eos_token_id
    assert taught == {label: (*word, end) for label, word in words.items()}
    assert context(small.model).answers_to_learn() == words


def test_an_end_that_the_tokenizer_does_not_have_is_an_error(small) -> None:
    ctx = context(small.model, fit=FitSettings(end=True))
    tokenizer = copy.deepcopy(ctx.lm.tokenizer)
    tokenizer.eos_token = None
    with pytest.raises(ModelError, match=r"fit\.end=true, but the tokenizer has no end token"):
        replace(ctx, lm=replace(ctx.lm, tokenizer=tokenizer)).answers_to_learn()
