"""Module paths of every family, and a family that nobody knows."""

from __future__ import annotations

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM

from absa_edit.errors import ModelError
from absa_edit.model.architectures import layout, site_inputs, site_shape
from absa_edit.model.block_runner import BlockRunner
from absa_edit.model.hooks import edited
from absa_edit.records import Part, Site


def test_every_part_of_every_layer_is_found(tiny) -> None:
    runner = BlockRunner(tiny.model)
    modules = [runner.module(Site(i, part)) for i in range(3) for part in (Part.block, Part.attn, Part.mlp)]
    assert runner.layers == 3
    assert len(set(map(id, modules))) == 9
    assert runner.module(Site(1, Part.head, 2)) is runner.module(Site(1, Part.attn))


@torch.no_grad()
def test_parts_write_into_the_block(tiny) -> None:
    """Silencing a projection changes its block's output, and no earlier one."""
    runner = BlockRunner(tiny.model)
    block_inputs = runner.begin(runner.embed(torch.arange(5, 15)[None]))
    states = [runner.run(block_inputs.hidden, 0, n, block_inputs) for n in range(3)]
    for part in (Part.attn, Part.mlp):
        with edited(runner.module(Site(1, part)), torch.zeros_like):
            assert torch.equal(runner.run(block_inputs.hidden, 0, 1, block_inputs), states[1])
            assert not torch.allclose(runner.run(block_inputs.hidden, 0, 2, block_inputs), states[2], atol=1e-3)


def test_widths_of_projections_and_heads(tiny) -> None:
    hidden, inner = tiny.model.config.hidden_size, 4 * 32 if tiny.name in ("tiny-gpt2",) else 48
    for part, inputs in ((Part.attn, hidden), (Part.mlp, inner)):
        assert site_shape(tiny.model, Site(0, part)) == (inputs, hidden)
        assert site_inputs(tiny.model, Site(2, part)) == slice(0, inputs)
    assert site_shape(tiny.model, Site(0, Part.head, 3)) == (hidden // 4, hidden)
    assert site_inputs(tiny.model, Site(0, Part.head, 3)) == slice(3 * hidden // 4, hidden)


def test_unknown_family_is_an_error() -> None:
    config = transformers.BloomConfig(vocab_size=50, hidden_size=16, n_layer=1, n_head=2)
    with pytest.raises(ModelError, match=r"BloomForCausalLM: no known family.*LAYOUTS"):
        layout(AutoModelForCausalLM.from_config(config))
