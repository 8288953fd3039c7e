"""Module paths of every family, and a family that nobody knows."""

from __future__ import annotations

import pytest
import torch
import transformers
from conftest import tiny_model
from families import CONFIGS, GROUPED, NAMES, README, between_marks, readme_list
from transformers import AutoModelForCausalLM

from absa_edit.errors import ModelError, PlanError
from absa_edit.model.architectures import layout, site_inputs, site_shape
from absa_edit.model.block_runner import BlockRunner
from absa_edit.model.hooks import edited
from absa_edit.records import Part, Site

EXPERTS = {"tiny-mixtral", "tiny-qwen2_moe", "tiny-qwen3_moe"}
FOUR_TIMES = {"tiny-gpt2", "tiny-bloom", "tiny-mpt"}
"""The MLP's width has no setting."""

pytestmark = pytest.mark.every_family


def test_every_part_of_every_layer_is_found(tiny) -> None:
    runner = BlockRunner(tiny.model)
    parts = [part for part in (Part.block, Part.attn, Part.mlp) if runner.has(part)]
    modules = [runner.module(Site(i, part)) for i in range(3) for part in parts]
    assert runner.layers == 3
    assert len(parts) == (2 if tiny.name in EXPERTS else 3)
    assert len(set(map(id, modules))) == 3 * len(parts)
    assert runner.module(Site(1, Part.head, 2)) is runner.module(Site(1, Part.attn))


@torch.no_grad()
def test_parts_write_into_the_block(tiny) -> None:
    """Silencing a projection changes its block's output, and no earlier one."""
    runner = BlockRunner(tiny.model)
    block_inputs = runner.begin(runner.embed(torch.arange(5, 15)[None]))
    states = [runner.run(block_inputs.hidden, 0, n, block_inputs) for n in range(3)]
    for part in filter(runner.has, (Part.attn, Part.mlp)):
        with edited(runner.module(Site(1, part)), torch.zeros_like):
            assert torch.equal(runner.run(block_inputs.hidden, 0, 1, block_inputs), states[1])
            assert not torch.allclose(runner.run(block_inputs.hidden, 0, 2, block_inputs), states[2], atol=1e-3)


def test_widths_of_projections_and_heads(tiny) -> None:
    hidden, inner = tiny.model.config.hidden_size, 4 * 32 if tiny.name in FOUR_TIMES else 48
    runner = BlockRunner(tiny.model)
    for part, inputs in ((Part.attn, hidden), (Part.mlp, inner)):
        if not runner.has(part):
            continue
        assert runner.shape(Site(0, part)) == (inputs, hidden) and runner.inputs(Site(2, part)) == slice(0, inputs)
        assert site_shape(tiny.model, Site(0, part)) == (inputs, hidden)
        assert site_inputs(tiny.model, Site(2, part)) == slice(0, inputs)
    assert site_shape(tiny.model, Site(0, Part.head, 3)) == (hidden // 4, hidden)
    assert site_inputs(tiny.model, Site(0, Part.head, 3)) == slice(3 * hidden // 4, hidden)


def test_a_bank_of_experts_has_no_mlp_site(tokenizer) -> None:
    runner = BlockRunner(tiny_model("mixtral", tokenizer).model)
    with pytest.raises(PlanError, match=r"mlp@1: block 0 has no single.*trace\.parts=\[block,attn\].*locate\.parts"):
        runner.module(Site(1, Part.mlp))
    with pytest.raises(PlanError, match="mlp@0: block 0"):
        runner.check_parts([Part.block, Part.mlp])
    runner.check_parts([Part.block, Part.attn, Part.head])


def test_one_mlp_among_experts_is_no_mlp_site(tokenizer) -> None:
    """The first block is dense, as in GLM-4.5 and Qwen MoE with mlp_only_layers."""
    model = tiny_model("qwen3_moe", tokenizer).model
    assert hasattr(model.model.layers[0].mlp, "down_proj")
    with pytest.raises(PlanError, match="mlp@0: block 1 has no single"):
        BlockRunner(model).module(Site(0, Part.mlp))


def test_unknown_family_is_an_error() -> None:
    config = transformers.CTRLConfig(vocab_size=50, n_embd=16, dff=16, n_layer=1, n_head=2)
    with pytest.raises(ModelError, match=r"CTRLLMHeadModel: no known family.*LAYOUTS"):
        layout(AutoModelForCausalLM.from_config(config))


@pytest.mark.parametrize("kinds", [["full", "linear", "linear"], ["linear", "linear", "full"]])
def test_blocks_of_several_kinds_are_an_error_that_names_one(kinds) -> None:
    config = transformers.Qwen3NextConfig(
        **{**GROUPED, "head_dim": 8},
        layer_types=[f"{kind}_attention" for kind in kinds],
        num_experts=0,
        linear_num_key_heads=2,
        linear_num_value_heads=2,
        linear_key_head_dim=8,
        linear_value_head_dim=8,
    )
    first, other = kinds.index("linear"), kinds.index("full")
    with pytest.raises(ModelError, match=rf"block {first} has no self_attn\.o_proj, as block {other} has"):
        layout(AutoModelForCausalLM.from_config(config))


def test_a_layout_is_looked_for_once(small) -> None:
    assert layout(small.model) is layout(small.model) is BlockRunner(small.model).layout


def test_the_readme_lists_what_is_tried() -> None:
    """And what is tried is every family's configuration: `tiny` runs through them."""
    assert NAMES.keys() == CONFIGS.keys()
    _, inside, _ = between_marks(README.read_text(encoding="utf-8"))
    assert inside == readme_list(), "run `python tests/families.py`"
    experts = inside.splitlines()[-1].rpartition(": ")[2].split(", ")
    assert {f"tiny-{family}" for family in CONFIGS if NAMES[family] in experts} == EXPERTS
