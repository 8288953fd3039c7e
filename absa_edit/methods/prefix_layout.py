"""Learned keys and values as PEFT holds them: a row a token, in it block by block the keys of all heads, the values."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from absa_edit.model.shared_prefix import PrefixKeys


def in_rows(keys: PrefixKeys) -> Float[Tensor, "token entry"]:
    """Keys and values of each block as such rows."""
    return torch.cat([states[0].transpose(0, 1).flatten(1) for pair in keys for states in pair], 1)


def by_block(rows: Float[Tensor, "token entry"], config: Any) -> PrefixKeys:
    """Keys and values of each block in such rows, of which a `PrefixTuningConfig` says how many heads they have."""
    states = rows.view(len(rows), config.num_layers, 2, config.num_attention_heads, -1)
    keys, values = states.permute(2, 1, 3, 0, 4)[:, :, None]
    return list(zip(keys, values, strict=True))
