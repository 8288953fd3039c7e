"""Keys and values of what all inputs begin with, computed once and brought to every run over the rest."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from absa_edit.model.attention import Heads, Keys, Mixed, attention_by, mix
from absa_edit.model.block_runner import BlockRunner
from absa_edit.model.prefix_tree import PrefixTree

PrefixKeys = Sequence[tuple[Keys, Keys]]
"""By block, keys and values; none where there is no such prefix."""


def keys_before(
    runner: BlockRunner, tree: PrefixTree, reach: Sequence[Bool[Tensor, "query key"]], blocks: int | None = None
) -> PrefixKeys:
    """Those of the tokens that stand before a tree's."""
    ids = torch.tensor([[*tree.before]], dtype=torch.long, device=runner.device)
    return prefix_keys(runner, runner.embed(ids), reach, blocks)


@torch.no_grad()
def prefix_keys(
    runner: BlockRunner,
    embeds: Float[Tensor, "1 pos embedding"],
    reach: Sequence[Bool[Tensor, "query key"]],
    blocks: int | None = None,
) -> PrefixKeys:
    """Those of a prefix in the first `blocks` blocks (by itself all), of which `reach` says what positions see."""
    length, attention_inputs = embeds.shape[1], list[Heads]()
    if not length:
        return ()

    def attend(heads: Heads) -> Mixed:
        attention_inputs.append(heads)
        return mix(heads, reach[len(attention_inputs) - 1][:length, :length])

    block_inputs = runner.begin(embeds)
    with attention_by(runner.model, attend):
        runner.run(block_inputs.hidden, 0, runner.layers if blocks is None else blocks, block_inputs)
    return [(heads.key, heads.value) for heads in attention_inputs]
