"""Models that run, but not as the block runner and our attention run them."""

from __future__ import annotations

import copy

import pytest
import torch
import transformers
from conftest import tiny_model
from families import ENDS, GROUPED
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from absa_edit.errors import ModelError
from absa_edit.model import attention
from absa_edit.model.block_runner import BlockRunner
from absa_edit.model.check import check_run

IDS = range(300, 333)
HALF = {"vocab_size": 8192, "n_embd": 32, "n_layer": 2, "n_head": 4}


def made(config: PreTrainedConfig) -> PreTrainedModel:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    for weight in model.parameters():
        if weight.ndim > 1:
            weight.mul_(6)
    return model


def gpt_oss() -> PreTrainedModel:
    model = made(transformers.GptOssConfig(**GROUPED, head_dim=8, num_local_experts=4))
    for layer in model.model.layers:
        layer.self_attn.sinks.fill_(1.0)
    return model


@pytest.mark.every_family
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_every_family_passes_in_every_dtype(tiny, dtype) -> None:
    model = tiny.model if dtype == torch.float32 else copy.deepcopy(tiny.model).to(dtype)
    check_run(model, IDS)


def test_nothing_stays_behind(small) -> None:
    modules = dict(small.model.named_modules())
    check_run(small.model, IDS)
    assert dict(small.model.named_modules()) == modules
    assert not any(m._forward_hooks or m._forward_pre_hooks or "forward" in vars(m) for m in modules.values())


def test_an_unknown_keyword_of_attention_is_an_error() -> None:
    """gpt-oss gives its attention sinks, which would be left out."""
    with pytest.raises(ModelError, match=r"block 0: GptOssAttention gives its attention `s_aux`"):
        check_run(gpt_oss(), IDS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_that_differs_is_found_with_its_block(monkeypatch, dtype) -> None:
    monkeypatch.setattr(attention, "HARMLESS", attention.HARMLESS | {"s_aux"})
    with pytest.raises(ModelError, match=r"GptOssForCausalLM: block 0: the outputs of its attn differ .* by \d\.\d+ "):
        check_run(gpt_oss().to(dtype), IDS)


def test_blocks_that_return_a_tuple_are_an_error_where_none_is_expected() -> None:
    """OpenAI's first GPT has the module names of GPT-2."""
    with pytest.raises(ModelError, match=r"OpenAIGPTLMHeadModel: block 0 returns a tuple, expected its states"):
        check_run(made(transformers.OpenAIGPTConfig(**HALF)), IDS)


def test_xglm_is_an_error() -> None:
    config = transformers.XGLMConfig(
        vocab_size=8192, d_model=32, ffn_dim=48, num_layers=2, attention_heads=4, **ENDS, decoder_start_token_id=2
    )
    with pytest.raises(ModelError, match="XGLMForCausalLM: no known family"):
        check_run(made(config), IDS)


@pytest.mark.parametrize("times", [0, 2])
def test_attention_that_does_not_ask_once_is_an_error(small, times, monkeypatch) -> None:
    model = copy.deepcopy(small.model)
    own = type(model.model.layers[1].self_attn).forward

    def forward(*args: object, **kwargs: object) -> object:
        if times and attention.is_ours(model):
            own(model.model.layers[1].self_attn, *args, **kwargs)
        before, model.config._attn_implementation = model.config._attn_implementation, "eager"
        try:
            return own(model.model.layers[1].self_attn, *args, **kwargs)
        finally:
            model.config._attn_implementation = before

    if times:
        config = transformers.DiffLlamaConfig(**GROUPED)
        model, block = made(config), 0
    else:
        block = 1
        monkeypatch.setitem(vars(model.model.layers[1].self_attn), "forward", forward)
    with pytest.raises(ModelError, match=rf"block {block} asks transformers' attention function {times} times"):
        check_run(model, IDS)


def test_what_mixes_positions_besides_attention_is_found(small) -> None:
    model = copy.deepcopy(small.model)
    model.model.layers[2].mlp.down_proj.register_forward_hook(lambda module, args, output: output.cumsum(1))
    with pytest.raises(ModelError, match="block 2: the outputs of its mlp differ"):
        check_run(model, IDS)


def test_what_happens_between_blocks_is_found(small) -> None:
    model = copy.deepcopy(small.model)
    model.model.layers[1].register_forward_pre_hook(lambda module, args: (args[0] + 1, *args[1:]))
    with pytest.raises(ModelError, match="what enters block 1 is not what leaves block 0"):
        check_run(model, IDS)


def test_numbers_that_leave_the_dtype_are_found_with_their_block(small) -> None:
    model = copy.deepcopy(small.model).half()
    model.model.layers[1].mlp.down_proj.weight.fill_(6e4)
    with pytest.raises(ModelError, match=r"answers NaN or infinity \(first in block: 1\).*model\.dtype"):
        check_run(model, IDS)


def test_whatever_goes_wrong_is_told_in_one_line(small) -> None:
    model = copy.deepcopy(small.model)
    runner = BlockRunner(model)

    def fail(*_: object) -> None:
        if attention.is_ours(model):
            raise KeyError("a cache\nof its own")

    runner.blocks[1].register_forward_pre_hook(fail)
    line = r"^LlamaForCausalLM: block 1 does not run here: KeyError: .*\(the README lists them\)$"
    with pytest.raises(ModelError, match=line):
        check_run(model, IDS)


@pytest.mark.parametrize("family", ["gpt2", "opt", "gpt_neo", "gptj", "mpt"])
def test_a_sequence_over_the_table_of_positions_is_an_error(family, tokenizer) -> None:
    runner = BlockRunner(tiny_model(family, tokenizer).model)
    assert runner.positions == 128
    assert len(runner.reach(128)) == 3
    with pytest.raises(ModelError, match=r"has 129 tokens, the model's positions end at 128; set prompt\.max_tokens"):
        runner.reach(129)


@pytest.mark.parametrize("family", ["llama", "bloom", "falcon", "falcon_alibi"])
def test_families_without_a_table_go_on(family, tokenizer) -> None:
    runner = BlockRunner(tiny_model(family, tokenizer).model)
    assert runner.positions is None and len(runner.reach(300)) == 3
