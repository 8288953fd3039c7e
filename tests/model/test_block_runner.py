"""The runner view against the model's own forward, for every family."""

from __future__ import annotations

import copy

import pytest
import torch
from conftest import tiny_model
from contexts import adapt
from peft import LoraConfig, get_peft_model
from torch import Tensor

from absa_edit.methods.lora import Lora
from absa_edit.model.block_runner import BlockRunner
from absa_edit.model.loading import LanguageModel

pytestmark = pytest.mark.every_family

LENGTHS = (17, 9, 13)


def padded(seed: int = 0) -> Tensor:
    """Random rows of different lengths, padded on the right with token 0."""
    ids = torch.randint(3, 8192, (len(LENGTHS), max(LENGTHS)), generator=torch.Generator().manual_seed(seed))
    for row, length in zip(ids, LENGTHS, strict=True):
        row[length:] = 0
    return ids


def hooks(lm: LanguageModel) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in lm.model.modules())


@torch.no_grad()
def test_equals_the_models_own_forward_at_real_positions(tiny) -> None:
    runner, ids = BlockRunner(tiny.model), padded()
    block_inputs = runner.begin(runner.embed(ids))
    hidden = runner.run(block_inputs.hidden, 0, runner.layers, block_inputs)
    for row, tokens, length in zip(hidden, ids, LENGTHS, strict=True):
        alone = tiny.model(input_ids=tokens[None, :length]).logits[0]
        torch.testing.assert_close(runner.logits(row[:length]), alone, atol=1e-4, rtol=1e-4)
        assert alone.std() > 1e-2


@torch.no_grad()
def test_restarts_at_any_block(tiny) -> None:
    runner, ids = BlockRunner(tiny.model), padded()
    block_inputs = runner.begin(runner.embed(ids))
    whole = runner.run(block_inputs.hidden, 0, runner.layers, block_inputs)
    for layer in range(runner.layers + 1):
        entering = runner.run(block_inputs.hidden, 0, layer, block_inputs)
        assert torch.equal(runner.run(entering, layer, runner.layers, block_inputs), whole)
        if layer < runner.layers:
            assert not torch.allclose(entering, whole)


@torch.no_grad()
def test_one_row_frame_serves_many_rows(tiny) -> None:
    runner, ids = BlockRunner(tiny.model), padded()
    block_inputs = runner.begin(runner.embed(ids))
    one = runner.begin(runner.embed(ids[:1]))
    entering = runner.run(block_inputs.hidden, 0, 1, block_inputs)
    torch.testing.assert_close(
        runner.run(entering, 1, runner.layers, one), runner.run(entering, 1, runner.layers, block_inputs)
    )


@torch.no_grad()
def test_logits_of_some_words_are_those_of_the_whole_vocabulary(tiny) -> None:
    runner, ids = BlockRunner(tiny.model), padded()
    block_inputs = runner.begin(runner.embed(ids))
    hidden = runner.run(block_inputs.hidden, 0, runner.layers, block_inputs)[:, 5]
    words = (7, 4001, 12)
    torch.testing.assert_close(runner.logits(hidden, words), runner.logits(hidden)[:, words], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_leaves_the_model_as_it_was(tiny) -> None:
    runner, ids = BlockRunner(tiny.model), padded()
    before = tiny.model(input_ids=ids).logits
    modules = dict(tiny.model.named_modules())
    names = set(tiny.model.state_dict())
    block_inputs = runner.begin(runner.embed(ids))
    runner.logits(runner.run(block_inputs.hidden, 0, runner.layers, block_inputs)[:, -1], (5, 6))
    assert dict(tiny.model.named_modules()) == modules
    assert set(tiny.model.state_dict()) == names
    assert hooks(tiny) == 0
    assert torch.equal(tiny.model(input_ids=ids).logits, before)


@torch.no_grad()
def test_leaves_the_model_as_it_was_after_an_error(tiny) -> None:
    runner, ids = BlockRunner(tiny.model), padded()
    modules = dict(tiny.model.named_modules())
    width = runner.embeddings.weight.shape[1]
    with pytest.raises((RuntimeError, ValueError, TypeError, IndexError)):
        runner.begin(torch.zeros(1, 4, width + 1, dtype=torch.float64))  # no such width or dtype in the model
        runner.logits(torch.zeros(2, 7))
    with pytest.raises((RuntimeError, ValueError)):
        runner.logits(torch.zeros(2, 7))
    assert dict(tiny.model.named_modules()) == modules
    assert runner.run(runner.begin(runner.embed(ids)).hidden, 0, 0, runner.begin(runner.embed(ids))).ndim == 3


def test_runs_through_adapters_inside_the_blocks(tiny) -> None:
    adapted = adapt(tiny.model, Lora(lr=1e-3), None, seed=0)
    with torch.no_grad():
        for name, parameter in adapted.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1, generator=torch.Generator().manual_seed(1))
        ids = padded()[:1]
        runner = adapted.runner
        block_inputs = runner.begin(runner.embed(ids))
        hidden = runner.run(block_inputs.hidden, 0, runner.layers, block_inputs)
        expected = adapted.peft(input_ids=ids).logits
        torch.testing.assert_close(runner.logits(hidden[0]), expected[0], atol=1e-4, rtol=1e-4)
        assert not torch.allclose(expected, tiny.model(input_ids=ids).logits, atol=1e-2)


def test_gradients_reach_the_blocks_that_ran(small) -> None:
    runner, ids = BlockRunner(small.model), padded()
    block_inputs = runner.begin(runner.embed(ids))
    entering = runner.run(block_inputs.hidden, 0, 1, block_inputs).requires_grad_()
    runner.logits(runner.run(entering, 1, runner.layers, block_inputs)[:, -1]).square().sum().backward()
    assert entering.grad is not None and entering.grad.abs().sum() > 0
    assert all(p.grad is None for p in small.model.parameters())


@pytest.mark.parametrize("family", ["gemma3", "gemma2", "gpt_neox", "gptj"])
def test_some_words_give_a_trained_output_layer_its_gradient(family, tokenizer) -> None:
    model, words = tiny_model(family, tokenizer).model.requires_grad_(True), [7, 4001, 12]
    runner = BlockRunner(model)
    hidden = torch.randn(3, model.config.hidden_size, generator=torch.Generator().manual_seed(0))
    wanted = list(model.get_output_embeddings().parameters())
    found = torch.autograd.grad(runner.logits(hidden, words).square().sum(), wanted)
    expected = torch.autograd.grad(runner.logits(hidden)[:, words].square().sum(), wanted)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
        assert other.abs().sum() > 0


def test_some_words_of_an_adapted_output_layer_have_its_delta(small) -> None:
    model = copy.deepcopy(small.model)
    config = LoraConfig(r=2, target_modules=["lm_head"], init_lora_weights=False)
    adapted = get_peft_model(model, config).get_base_model()
    runner, hidden = BlockRunner(adapted), torch.randn(3, adapted.config.hidden_size)
    words = [7, 4001]
    found = runner.logits(hidden, words)
    torch.testing.assert_close(found, runner.logits(hidden)[:, words])
    assert not torch.allclose(found, small.runner.logits(hidden, words), atol=1e-3)
