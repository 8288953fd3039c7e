"""A batch of subtrees on its way through the blocks: every state is that of its sequence alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import pad

from absa_edit.model.attention import Heads, Keys, Mixed, attention_by, mix, mix_after
from absa_edit.model.block_runner import BlockInputs, BlockRunner
from absa_edit.model.prefix_tree import Batch
from absa_edit.model.shared_prefix import PrefixKeys

States = Float[Tensor, "1 slot hidden"]
Known = Callable[[int, Batch], tuple[Keys, Keys]]
"""Keys and values of known slots in a block."""


@dataclass
class TreeForward:
    """A batch on its way through the blocks, which are the model's own but for what a position may see."""

    runner: BlockRunner
    reach: tuple[Bool[Tensor, "query key"], ...]
    """By block, the positions that each position sees in a sequence."""
    batch: Batch
    block_inputs: BlockInputs
    known: Known | None = None
    """Keys and values of `batch.known`, where it is not empty."""
    before: PrefixKeys = ()
    """Those of the tokens before the tree's."""
    masks: dict[int, Bool[Tensor, "group 1 1 slot key"]] = field(default_factory=dict)

    def block(self, layer: int, hidden: States, attention_inputs: list[Heads] | None = None) -> States:
        """The states that leave a block; `attention_inputs` receives what its attention was asked."""
        root, groups = self.batch.root, self.batch.groups

        def attend(heads: Heads) -> Mixed:
            if attention_inputs is not None:
                attention_inputs.append(heads)
            mixed = self._mix(layer, _grouped(heads.query[:, :, root:], groups), heads, self._mask(layer))
            all_slots = mixed.transpose(1, 2).flatten(0, 1)[None]
            if root:
                query, key, value = (x[:, :, :root] for x in (heads.query, heads.key, heads.value))
                seen = self.reach[layer][self._first :][:root, : self._first + root]
                alone = self._over(layer, Heads(query, key, value, heads.scale, heads.softcap), seen)
                all_slots = torch.cat((alone.transpose(1, 2), all_slots), 1)
            return all_slots.transpose(1, 2)

        with attention_by(self.runner.model, attend):
            return self.runner.run(hidden, layer, layer + 1, self.block_inputs)

    def last_block(self, hidden: States, slots: Int[Tensor, " token"]) -> Float[Tensor, "token hidden"]:
        """The states that leave the last block at some slots of suffixes; the others give keys and values alone."""
        layer, batch = self.runner.layers - 1, self.batch
        group, slot = (slots - batch.root) // batch.width, (slots - batch.root) % batch.width
        place = _places(group)
        chosen = slots.new_zeros(batch.groups, int(place.max()) + 1).index_put((group, place), slot)
        mask = self._mask(layer)[:, 0, 0][torch.arange(batch.groups, device=slots.device)[:, None], chosen]

        def attend(heads: Heads) -> Mixed:
            asking = heads.query[0].transpose(0, 1)
            query = asking.new_zeros(*chosen.shape, *asking.shape[1:]).index_put((group, place), asking)
            mixed = self._mix(layer, query.transpose(1, 2), heads, mask[:, None, None])
            return mixed.transpose(1, 2)[group, place].transpose(0, 1)[None]

        return self.runner.run_at(layer, hidden, slots[None], self.block_inputs, attend)[0]

    def _mix(self, layer: int, query: Mixed, heads: Heads, mask: Tensor) -> Mixed:
        """Attention of each group's queries over what it may see."""
        batch = self.batch
        before = self.known(layer, batch) if self.known else (x[:, :, : batch.root] for x in (heads.key, heads.value))
        key, value = (
            torch.cat((first.expand(batch.groups, -1, -1, -1), _grouped(states[:, :, batch.root :], batch.groups)), 2)
            for first, states in zip(before, (heads.key, heads.value), strict=True)
        )
        return self._over(layer, Heads(query, key, value, heads.scale, heads.softcap), mask)

    def _over(self, layer: int, heads: Heads, mask: Tensor) -> Mixed:
        """Attention over what stands before the tree and the heads' own keys."""
        if not self.before:
            return mix(heads, mask)
        if not torch.is_grad_enabled():
            return mix_after(heads, mask, self.before[layer])
        unseen = self._first + heads.key.shape[2] - mask.shape[-1]  # columns that a mask leaves out: all is seen there
        return mix(heads, pad(mask, (unseen, 0), value=True), self.before[layer])

    @property
    def _first(self) -> int:
        """Position of the tree's first token."""
        return self.before[0][0].shape[2] if self.before else 0

    def _mask(self, layer: int) -> Bool[Tensor, "group 1 1 slot key"]:
        reach, batch = self.reach[layer], self.batch
        if id(reach) not in self.masks:
            query, key = batch.grouped(batch.computed.position)[:, :, None], batch.keys("position")[:, None]
            seen = batch.visible() & reach[query, key]
            early = reach[query[:, :, 0], : self._first]
            if not early.all():
                seen = torch.cat((early, seen), 2)
            self.masks[id(reach)] = seen[:, None, None]
        return self.masks[id(reach)]


def _grouped(states: Float[Tensor, "1 head every width"], groups: int) -> Float[Tensor, "group head slot width"]:
    return cast(Tensor, states[0].unflatten(1, (groups, -1)).transpose(0, 1))


def _places(groups: Int[Tensor, " token"]) -> Int[Tensor, " token"]:
    """How many tokens of the same group come before each."""
    same = groups[:, None] == groups
    return same.tril(-1).sum(1)
