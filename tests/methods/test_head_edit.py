"""Scaled and shifted heads: however the model is run they equal hooks by hand, and merged they are its weights."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import ExitStack, contextmanager

import numpy as np
import pytest
import torch
from contexts import adapt
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

import absa_edit
from absa_edit.errors import CannotMerge
from absa_edit.evaluation.predict import log_probabilities
from absa_edit.export.folder import merged
from absa_edit.inference.classifier import Classifier
from absa_edit.localizers.plan import plan_of
from absa_edit.methods.adapted_model import AdaptedModel, changed_elsewhere
from absa_edit.methods.jola import Jola
from absa_edit.methods.lofit import Lofit
from absa_edit.methods.settings import MethodSettings
from absa_edit.methods.zero_shot import ZeroShot
from absa_edit.model.hooks import entering
from absa_edit.model.loading import LanguageModel, load_model
from absa_edit.model.settings import ModelSettings
from absa_edit.records import Part, Site
from absa_edit.tasks.absc import ABSC

HEADS = [Site(1, Part.head, 0), Site(1, Part.head, 3), Site(2, Part.head, 2)]
METHODS = {"jola": Jola(located=True), "lofit": Lofit(located=True)}


def adapted_to(lm: LanguageModel, method: MethodSettings, sites: Sequence[Site] = HEADS) -> AdaptedModel:
    return adapt(lm.model, method, plan_of(lm.runner, sites, 1, "manual"), seed=0)


def moved(adapted: AdaptedModel, size: float = 0.7) -> AdaptedModel:
    """With everything that trains elsewhere."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in adapted.trainable().values():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator))
    return adapted


def by_hand(adapted: AdaptedModel, heads: int) -> dict[int, tuple[Tensor, Tensor]]:
    """Factor and offset of the inputs of each edited output projection, from the saved tensors and the formula."""
    prefix = f"{adapted.runner.layout.blocks}."
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in adapted.trainable().items():
        layer, _, rest = name.removeprefix(prefix).partition(".")
        state.setdefault(int(layer), {})[rest.removeprefix(f"{adapted.runner.layout.attn}.")] = tensor.detach()
    edits = {}
    for layer, tensors in state.items():
        if "log_alpha" in tensors:
            gates = (1.2 / (1 + torch.exp(-tensors["log_alpha"])) - 0.1).clamp(0, 1)
            multiplied, added = gates[..., None] * tensors["change"]
            edits[layer] = (1 + multiplied.reshape(-1), added.reshape(-1))
        else:
            width = len(next(iter(tensors.values())))
            offset = torch.zeros(heads * width)
            for name, tensor in tensors.items():
                head = int(name.removeprefix("offsets."))
                offset[head * width : (head + 1) * width] = tensor
            edits[layer] = (torch.ones(heads * width), offset)
    return edits


@contextmanager
def hooked(lm: LanguageModel, edits: dict[int, tuple[Tensor, Tensor]]):
    """The base model with the heads' outputs edited by hooks."""
    with ExitStack() as stack:
        for layer, (factor, offset) in edits.items():
            projection = lm.runner.module(Site(layer, Part.attn))
            stack.enter_context(entering(projection, lambda z, f=factor, o=offset: z * f + o))
        yield


def plain_answers(model: nn.Module, prompts, labels) -> np.ndarray:
    """Label log-probabilities by one full forward pass a prompt."""
    words = [word[0] for word in labels.values()]
    rows = []
    for prompt in prompts:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([prompt.ids]), use_cache=False).logits[0, -1, words]
        rows.append(logits.double().log_softmax(-1).numpy())
    return np.array(rows)


@pytest.mark.parametrize("name", METHODS)
def test_untrained_answers_are_the_base_models(tiny, prompts, labels, name) -> None:
    adapted, base = adapted_to(tiny, METHODS[name]), adapt(tiny.model, ZeroShot(), None, seed=0)
    both = [log_probabilities(a, prompts, labels, batch_tokens=400) for a in (adapted, base)]
    assert np.array_equal(*both)
    assert not list(changed_elsewhere(adapted, tiny.model))
    assert all(parameter.dtype == torch.float32 for parameter in adapted.trainable().values())


@pytest.mark.parametrize("name", METHODS)
def test_every_way_of_running_it_equals_hooks_by_hand(tiny, prompts, labels, name) -> None:
    adapted = moved(adapted_to(tiny, METHODS[name]))
    edits = by_hand(adapted, tiny.runner.heads)
    assert sorted(edits) == [1, 2]
    with hooked(tiny, edits):
        expected = plain_answers(tiny.model, prompts, labels)
    assert np.abs(expected - plain_answers(tiny.model, prompts, labels)).max() > 1e-2
    np.testing.assert_allclose(plain_answers(adapted.model, prompts, labels), expected, atol=1e-4)
    np.testing.assert_allclose(log_probabilities(adapted, prompts, labels, batch_tokens=400), expected, atol=1e-4)
    assert adapted.start == 1


@pytest.mark.parametrize("tiny", ["gpt2", "gpt_neox", "opt"], indirect=True)
@pytest.mark.parametrize("name", METHODS)
def test_merged_is_the_model_in_memory(tiny, prompts, labels, tmp_path, name) -> None:
    adapted = moved(adapted_to(tiny, METHODS[name]))
    plain, expected = merged(adapted), plain_answers(adapted.model, prompts, labels)
    assert [n for n, _ in plain.named_parameters()] == [n for n, _ in tiny.model.named_parameters()]
    assert type(plain) is type(tiny.model) and not any(p.requires_grad for p in plain.parameters())
    np.testing.assert_allclose(plain_answers(plain, prompts, labels), expected, atol=1e-4)
    np.testing.assert_array_equal(plain_answers(adapted.model, prompts, labels), expected)  # it stays as it was
    plain.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    np.testing.assert_allclose(plain_answers(loaded, prompts, labels), expected, atol=1e-4)
    changed = sum(
        p.numel()
        for (name, p), q in zip(plain.named_parameters(), tiny.model.parameters(), strict=True)
        if not torch.equal(p, q)
    )
    assert changed == adapted.touched


@pytest.mark.parametrize("name", METHODS)
def test_offsets_have_no_place_in_a_projection_without_a_bias(small, name) -> None:
    with pytest.raises(CannotMerge, match="the output projections have none"):
        merged(moved(adapted_to(small, METHODS[name])))


def test_scales_alone_are_merged_without_a_bias(small, prompts, labels) -> None:
    adapted = moved(adapted_to(small, METHODS["jola"]))
    with torch.no_grad():
        for name, parameter in adapted.trainable().items():
            if name.endswith("log_alpha"):
                parameter[1] = -3.0  # closed: 1.2 / (1 + e^3) < 0.1
    expected = plain_answers(adapted.model, prompts, labels)
    np.testing.assert_allclose(plain_answers(merged(adapted), prompts, labels), expected, atol=1e-4)


def test_merging_sums_in_float32_and_casts_once(small) -> None:
    half = LanguageModel("half", "half", copy.deepcopy(small.model).bfloat16(), small.tokenizer, "0")
    adapted = moved(adapted_to(half, METHODS["jola"]))
    with torch.no_grad():
        for name, parameter in adapted.trainable().items():
            if name.endswith("log_alpha"):
                parameter[1] = -3.0
    (factor, _) = by_hand(adapted, small.runner.heads)[1]
    base, weight = half.model.model.layers[1].self_attn.o_proj.weight, None
    weight = merged(adapted).model.layers[1].self_attn.o_proj.weight
    assert torch.equal(weight, (base.float() * factor).bfloat16())
    assert not torch.equal(weight, base * factor.bfloat16()), "rounding twice is something else"


@pytest.mark.parametrize("name", METHODS)
def test_it_runs_beside_half_weights_and_under_autocast(small, prompts, name) -> None:
    half = LanguageModel("half", "half", copy.deepcopy(small.model).bfloat16(), small.tokenizer, "0")
    ids = torch.tensor([prompts[0].ids])
    for lm in (half, small):
        adapted = moved(adapted_to(lm, METHODS[name]), 0.1)
        expected = lm.model(input_ids=ids, use_cache=False).logits
        with torch.autocast("cpu", torch.bfloat16, enabled=lm is small):
            logits = adapted.model(input_ids=ids, use_cache=False).logits
            logits.float().sum().backward()
        assert logits.isfinite().all() and logits.shape == expected.shape
        assert all(p.dtype == torch.float32 and p.grad is not None for p in adapted.trainable().values())


@pytest.mark.parametrize("name", METHODS)
def test_saved_and_loaded_is_the_model_in_memory(base_folder, examples, tmp_path, name) -> None:
    lm = load_model(ModelSettings(name=str(base_folder), device="cpu"))
    trained = Classifier(lm, moved(adapted_to(lm, METHODS[name])), ABSC.prompt(), ABSC)
    trained.save(tmp_path / name)
    loaded = absa_edit.load(tmp_path / name, device="cpu")
    answers, again = ([[*row.values()] for row in c.answer(examples)] for c in (trained, loaded))
    np.testing.assert_allclose(again, answers, atol=1e-6)
    base = Classifier(lm, AdaptedModel("base", lm.model), ABSC.prompt(), ABSC)
    assert np.abs(np.array(answers) - [[*row.values()] for row in base.answer(examples)]).max() > 1e-2
    assert loaded.adapted.trainable().keys() == trained.adapted.trainable().keys()
