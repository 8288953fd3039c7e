"""A causal language model as embed -> blocks -> logits, so that a run can start at any block.

Nothing of the model is written again here. What a family does before its first block (scaled or position
embeddings, masks, rotary angles, sliding windows) and after its last (norms, head, soft caps) is its own
forward, run while its blocks stand still; the blocks are called one by one with the arguments that
forward gives them. So every family of `absa_edit.lm.sites` works, and the tests hold
`run(embed(x), 0, L)` against the model's own forward for each.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import Cache, DynamicLayer

from absa_edit.lm.sites import layout
from absa_edit.records import Site

Hidden = Float[Tensor, "batch pos hidden"]


@dataclass(frozen=True)
class Frame:
    """What the model computes before its first block.

    A frame begun with one row serves any number of rows of the same length.
    """

    hidden: Hidden
    """The states that enter block 0."""
    calls: tuple[tuple[tuple[Any, ...], dict[str, Any]], ...]
    """Arguments of each block besides its hidden states: masks, rotary angles, cache."""


class PrefixCache(Cache):
    """Keys and values of earlier positions, put before those of the current ones and never changed.

    `rows` rows of the prefix serve any multiple of that many rows of the run, in the same order over and over.
    """

    def __init__(self, source: DynamicCache, length: int) -> None:
        super().__init__(layers=[_PrefixLayer(layer, length) for layer in source.layers])


class _PrefixLayer(DynamicLayer):
    def __init__(self, source: Any, length: int) -> None:
        super().__init__()
        self.keys = source.keys[:, :, :length]
        self.values = source.values[:, :, :length]
        self.dtype, self.device = self.keys.dtype, self.keys.device
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        assert self.keys is not None and self.values is not None
        times = (len(key_states) // len(self.keys), 1, 1, 1)
        return (
            torch.cat((self.keys.repeat(times), key_states), 2),
            torch.cat((self.values.repeat(times), value_states), 2),
        )


class _Standing(nn.Module):
    """Stands in for a block: keeps the arguments of the call and passes the given states on."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.__dict__["block"] = block  # not a child: it must not be found twice in the module tree
        self.call: tuple[tuple[Any, ...], dict[str, Any]] | None = None
        self.entered: Tensor | None = None
        self.leaving: Tensor | None = None

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        self.call, self.entered = (args, kwargs), hidden_states
        return hidden_states if self.leaving is None else self.leaving

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["block"], name) if name not in self._modules else self._modules[name]


class Decoder:
    """Restartable view of a causal LM; holds no weights of its own and changes nothing in the model."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.layout = layout(model)
        self.blocks = cast(nn.ModuleList, model.get_submodule(self.layout.blocks))
        self.layers: int = len(self.blocks)
        self.embeddings: nn.Module = model.get_input_embeddings()

    @property
    def device(self) -> torch.device:
        return self.model.device

    def module(self, site: Site) -> nn.Module:
        """The module whose output is `site`'s state."""
        return self.model.get_submodule(self.layout.path(site))

    def embed(self, input_ids: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch pos embedding"]:
        """Token embeddings, before positions or scaling are added."""
        return self.embeddings(input_ids)

    def begin(self, embeds: Float[Tensor, "batch pos embedding"], past: Cache | None = None) -> Frame:
        """The frame of a run over `embeds`, whose first position follows those in `past`.

        Rows are padded on the right: no mask is needed, since no position sees a later one.
        """
        with self._standing_still() as blocks:
            self.model(inputs_embeds=embeds, past_key_values=past, use_cache=past is not None, logits_to_keep=1)
        return Frame(blocks[0].entered, tuple(b.call for b in blocks))  # type: ignore[arg-type, misc]

    def run(self, hidden: Hidden, start: int, stop: int, frame: Frame) -> Hidden:
        """The states that leave block `stop - 1` when `hidden` enters block `start`."""
        for block, (args, kwargs) in zip(
            list(self.blocks)[start:stop],
            frame.calls[start:stop],
            strict=True,
        ):
            hidden = block(hidden, *args, **kwargs)
        return hidden

    def logits(self, hidden: Float[Tensor, "row hidden"]) -> Float[Tensor, "row vocabulary"]:
        """Next-token logits of states that left the last block."""
        width = cast(Tensor, self.embeddings.weight).shape[1]
        embeds = torch.zeros(len(hidden), 1, width, dtype=self.model.dtype, device=hidden.device)
        with self._standing_still(leaving=hidden[:, None]):
            return self.model(inputs_embeds=embeds, use_cache=False).logits[:, 0]

    @contextmanager
    def _standing_still(self, leaving: Tensor | None = None) -> Iterator[list[_Standing]]:
        modules = self.blocks._modules
        real = dict(modules)
        standing = {name: _Standing(block) for name, block in real.items() if block is not None}
        for one in standing.values():
            one.leaving = leaving
        modules.update(standing)
        try:
            yield list(standing.values())
        finally:
            modules.update(real)
