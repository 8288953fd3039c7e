"""A batch of trees on its way through the blocks: every state is that of its sequence alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from absa_edit.lm.attention import Heads, Keys, Mixed, attention_by, mix
from absa_edit.lm.decoder import Decoder, Frame
from absa_edit.lm.forest import Batch

States = Float[Tensor, "row slot hidden"]

Known = Callable[[int, Batch], tuple[Keys, Keys]]
"""Keys and values of known slots in a block."""


@dataclass
class Course:
    """A batch on its way through the blocks, which are the model's own but for what a position may see."""

    decoder: Decoder
    reach: tuple[Bool[Tensor, "query key"], ...]
    """By block, the positions that each position sees in a sequence."""
    batch: Batch
    frame: Frame
    known: Known | None = None
    """Keys and values of `batch.known`, where it is not empty."""
    masks: dict[int, Bool[Tensor, "row 1 1 slot key"]] = field(default_factory=dict)

    def block(self, layer: int, hidden: States, found: list[Heads] | None = None) -> States:
        """The states that leave a block; `found` receives what its attention was asked."""

        def attend(heads: Heads) -> Mixed:
            if found is not None:
                found.append(heads)
            return self._mix(layer, heads, self._mask(layer))

        with attention_by(self.decoder.model, attend):
            return self.decoder.run(hidden, layer, layer + 1, self.frame)

    def last_block(
        self, hidden: States, rows: Int[Tensor, " token"], slots: Int[Tensor, " token"]
    ) -> Float[Tensor, "token hidden"]:
        """The states that leave the last block at some slots; of the others only keys and values are computed."""
        layer = self.decoder.layers - 1
        place = _places(rows)
        chosen = slots.new_zeros(len(hidden), int(place.max()) + 1).index_put((rows, place), slots)
        every = torch.arange(len(hidden), device=rows.device)[:, None]
        mask = self._mask(layer)[:, 0, 0][every, chosen][:, None, None]
        out = self.decoder.run_at(layer, hidden, chosen, self.frame, lambda heads: self._mix(layer, heads, mask))
        return out[rows, place]

    def _mix(self, layer: int, heads: Heads, mask: Tensor) -> Mixed:
        if self.known is not None:
            key, value = self.known(layer, self.batch)
            keys, values = torch.cat((key, heads.key), 2), torch.cat((value, heads.value), 2)
            heads = Heads(heads.query, keys, values, heads.scale, heads.softcap)
        return mix(heads, mask)

    def _mask(self, layer: int) -> Bool[Tensor, "row 1 1 slot key"]:
        reach = self.reach[layer]
        if id(reach) not in self.masks:
            query, key = self.batch.own.position[:, :, None], self.batch.key_positions[:, None]
            self.masks[id(reach)] = (self.batch.visible() & reach[query, key])[:, None, None]
        return self.masks[id(reach)]


def _places(rows: Int[Tensor, " token"]) -> Int[Tensor, " token"]:
    """How many tokens of the same row come before each."""
    same = rows[:, None] == rows
    return same.tril(-1).sum(1)
