"""The clean and the corrupted run of a prompt, with all that a restored run can take from them."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from absa_edit.model.attention import Attend, Heads, Keys, Mixed, attention_by, mix
from absa_edit.model.block_runner import BlockInputs, BlockRunner
from absa_edit.model.hooks import entering, recorded
from absa_edit.records import Part, Site

PROJECTED = (Part.attn, Part.mlp)
"""Parts whose state is the output of a projection; a model of experts has none for mlp."""


@dataclass(frozen=True)
class Layer:
    """What both runs leave behind in one block; the corrupted one from the first corrupted position on."""

    clean: dict[Part, Float[Tensor, "pos wide"]]
    """Output of block, attn and mlp; for head, what enters the output projection."""
    entering: Float[Tensor, "sample late hidden"]
    """Corrupted states entering the block."""
    queries: Float[Tensor, "sample head late width"]
    keys: Keys
    values: Keys
    """Of the corrupted run, keys and values at all positions."""
    allowed: Bool[Tensor, "query key"]


@dataclass(frozen=True)
class CleanAndCorrupted:
    """The clean and the corrupted run of one prompt: enough to start a restored run anywhere."""

    layers: list[Layer]
    leaving: Float[Tensor, "sample late hidden"]
    """Corrupted states that left the last block."""
    clean_last: Float[Tensor, "1 hidden"]
    """Clean state that left the last block at the last position."""
    first: int
    """The first corrupted position: before it both runs are the same in every layer."""
    block_inputs: BlockInputs

    @property
    def length(self) -> int:
        return self.block_inputs.hidden.shape[1]

    @property
    def samples(self) -> int:
        return len(self.leaving)


def clean_and_corrupted(
    runner: BlockRunner, embeds: Float[Tensor, "1 pos embedding"], corrupted: Float[Tensor, "sample pos embedding"]
) -> CleanAndCorrupted:
    """The states of both runs; the corrupted one is not computed before its first corrupted position."""
    block_inputs = runner.begin_with_masks(embeds)
    length = embeds.shape[1]
    first = min(first_changed(embeds, corrupted), length - 1)
    late = torch.arange(first, length, device=embeds.device)
    late_inputs = block_inputs.at(late)
    whole_inputs = block_inputs.at(torch.arange(length, device=embeds.device))
    clean, hidden = block_inputs.hidden, runner.begin(corrupted).hidden[:, first:]
    layers = []
    for index in range(runner.layers):
        allowed = block_inputs.allowed(index)
        attention_inputs: list[Heads] = []
        with ExitStack() as stack:
            sites = [Site(index, part) for part in PROJECTED if runner.has(part)]
            kept = {site.part: stack.enter_context(recorded(runner.module(site))) for site in sites}
            kept[Part.head] = stack.enter_context(entering(runner.module(Site(index, Part.head))))
            stack.enter_context(attention_by(runner.model, _keeping(attention_inputs, allowed)))
            clean = runner.run(clean, index, index + 1, whole_inputs)
        states = {part: outputs[0].reshape(length, -1) for part, outputs in kept.items()}
        states[Part.block] = clean[0]
        early = attention_inputs[0].key[:, :, :first], attention_inputs[0].value[:, :, :first]
        attention_inputs.clear()
        before, entered = (early if first else None), hidden
        with attention_by(runner.model, _keeping(attention_inputs, allowed[first:], before)):
            hidden = runner.run(hidden, index, index + 1, late_inputs)
        keys, values = (
            torch.cat((past.expand(len(hidden), -1, -1, -1), new), 2)
            for past, new in zip(early, (attention_inputs[0].key, attention_inputs[0].value), strict=True)
        )
        layers.append(Layer(states, entered, attention_inputs[0].query, keys, values, allowed))
    return CleanAndCorrupted(layers, hidden, clean[:, -1], first, block_inputs)


def first_changed(embeds: Float[Tensor, "1 pos embedding"], others: Float[Tensor, "row pos embedding"]) -> int:
    """The first position at which a row differs from `embeds`; the length where none does."""
    changed = (others != embeds).any(-1).any(0).nonzero()
    return int(changed[0]) if len(changed) else embeds.shape[1]


def _keeping(attention_inputs: list[Heads], allowed: Tensor, before: tuple[Keys, Keys] | None = None) -> Attend:
    """Attention as it is, with its queries, keys and values put into `attention_inputs`."""

    def attend(heads: Heads) -> Mixed:
        attention_inputs.append(heads)
        return mix(heads, None if allowed.all() else allowed, before)

    return attend
