"""A causal language model as embed -> blocks -> logits, so that a run can start at any block.

Nothing of the model is written again here. What a family does before its first block (scaled or position
embeddings, masks, rotary angles, sliding windows) and after its last (norms, head, soft caps) is its own
forward, run while its blocks stand still; the blocks are called one by one with the arguments that
forward gives them. So every family of `absa_edit.model.architectures` works, and the tests hold
`run(embed(x), 0, L)` against the model's own forward for each. A model that is loaded is tried the same way
(`absa_edit.model.check`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from absa_edit.errors import ModelError
from absa_edit.model.architectures import layout, site_inputs, site_shape
from absa_edit.model.attention import Attend, Heads, Mixed, asked, attention_by, implementation, is_ours, mix
from absa_edit.model.attention_adapters import adapted, window_mask
from absa_edit.model.hooks import silent
from absa_edit.records import Part, Site

AFTER = {Part.attn: "post_attention_layernorm", Part.mlp: "post_feedforward_layernorm"}
"""Norms of what attention and MLP give, in blocks that have the second one (Gemma 2 and 3, OLMo 2); in others the first
is the norm before the MLP."""

Hidden = Float[Tensor, "batch pos hidden"]
Call = tuple[tuple[Any, ...], dict[str, Any]]
"""Arguments of a block besides its hidden states, by place and by name."""


@dataclass(frozen=True)
class BlockInputs:
    """What the model computes before its first block.

    Inputs begun with one row serve any number of rows of the same length.
    """

    hidden: Hidden
    """The states that enter block 0."""
    calls: tuple[Call, ...]
    """Arguments of each block besides its hidden states: masks, rotary angles, cache."""

    def at(self, positions: Int[Tensor, "*row chosen"]) -> BlockInputs:
        """The inputs of a run over some positions only, the same in every row or each row's own.

        Without masks: for blocks inside `attention_by`.
        """
        length = self.hidden.shape[1]
        all_rows = (
            torch.arange(len(positions), device=positions.device)[:, None] if positions.ndim == 2 else slice(None)
        )

        def cut(value: Any) -> Any:
            if isinstance(value, Tensor):
                rows = 0 if positions.ndim == 2 and len(value) == 1 else all_rows
                return value[rows, positions] if value.ndim in (2, 3) and value.shape[1] == length else None
            return tuple(map(cut, value)) if isinstance(value, tuple) else value

        calls = ((tuple(map(cut, args)), {n: cut(v) for n, v in kwargs.items()}) for args, kwargs in self.calls)
        return BlockInputs(cut(self.hidden), tuple(calls))

    def allowed(self, layer: int) -> Bool[Tensor, "query key"]:
        """Which positions each one sees in a block: the causal ones, of these those in a sliding window."""
        length = self.hidden.shape[1]
        mask = self.calls[layer][1].get("attention_mask")
        if mask is None:
            return torch.ones(length, length, dtype=torch.bool, device=self.hidden.device).tril()
        return cast(Tensor, mask[0, 0])


class _Placeholder(nn.Module):
    """Stands in for a block: keeps the arguments of the call and passes the given states on."""

    def __init__(self, block: nn.Module, *, pairs: bool) -> None:
        super().__init__()
        self.__dict__["block"] = block  # not a child: it must not be found twice in the module tree
        self.pairs = pairs
        self.call: tuple[tuple[Any, ...], dict[str, Any]] | None = None
        self.entered: Tensor | None = None
        self.leaving: Tensor | None = None

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor | tuple[Tensor, None]:
        self.call, self.entered = (args, kwargs), hidden_states
        leaving = hidden_states if self.leaving is None else self.leaving
        return (leaving, None) if self.pairs else leaving

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["block"], name) if name not in self._modules else self._modules[name]


class _Rows(nn.Module):
    """Stands in for an output layer: the logits of some tokens, in their order."""

    def __init__(self, layer: nn.Module, words: Sequence[int]) -> None:
        super().__init__()
        self.__dict__["layer"] = layer  # not a child: its parameters must not be found twice
        self.words = list(words)
        bias = getattr(layer, "bias", None)
        self.weight = cast(Tensor, layer.weight)[self.words]
        self.bias = None if bias is None else bias[self.words]

    def forward(self, hidden: Tensor) -> Tensor:
        if not isinstance(self.__dict__["layer"], nn.Linear):  # an adapter's, with more than rows
            return cast(Tensor, self.__dict__["layer"](hidden)[..., self.words])
        return nn.functional.linear(hidden, self.weight, self.bias)


class BlockRunner:
    """Restartable view of a causal LM; holds no weights of its own and changes nothing in the model.

    With `rounded` its blocks multiply matrices in bfloat16 (on a CPU all but attention's own, `attention.mix`): faster
    where the machine has units for it, and an approximation. Weights, residual stream, norms, softmax and the answer's
    logits keep the model's dtype: rounding the residual stream too is what makes effects drift.
    """

    def __init__(self, model: PreTrainedModel, *, rounded: bool = False) -> None:
        self.model = model
        self.rounded = rounded
        self.layout = layout(model)
        self.blocks = cast(nn.ModuleList, model.get_submodule(self.layout.blocks))
        self.layers: int = len(self.blocks)
        self.heads: int = model.config.num_attention_heads
        self.embeddings: nn.Module = model.get_input_embeddings()
        table = self.layout.positions
        self.positions: int | None = None if table is None else getattr(model.config, table)
        """How long a sequence can be; None where the family has no table of positions."""
        self._adapted = adapted(model)
        self._biased = bool(self._adapted) and self._adapted[0][1].bias(model, 1) is not None

    @property
    def device(self) -> torch.device:
        return self.model.device

    def module(self, site: Site) -> nn.Module:
        """The module whose output is `site`'s state. Raises `PlanError` where the model has no such site."""
        return self.model.get_submodule(self.path(site))

    def added(self, layer: int, part: Part) -> nn.Module:
        """The module whose output is added to the residual stream: the projection, or the norm after it."""
        return self.model.get_submodule(self.path_of_added(layer, part))

    def path_of_added(self, layer: int, part: Part) -> str:
        """Dotted path of that module."""
        if part in AFTER and hasattr(self.blocks[layer], AFTER[Part.mlp]):
            return f"{self.layout.blocks}.{layer}.{AFTER[part]}"
        return self.path(Site(layer, part))

    def path(self, site: Site) -> str:
        """Dotted path of that module. Raises `PlanError` where the model has no such site."""
        return self.layout.path(site)

    def inputs(self, site: Site) -> slice:
        """The inputs of `site`'s projection that it stands for: all, or those that one head fills."""
        return site_inputs(self.model, site)

    def shape(self, site: Site) -> tuple[int, int]:
        """Inputs and outputs of the part of its projection's weight that `site` stands for."""
        return site_shape(self.model, site)

    def has(self, part: Part) -> bool:
        """Whether there are sites of that part: a model of experts has none of `mlp`."""
        return part is not Part.mlp or self.layout.mlp is not None

    def check_parts(self, parts: Sequence[Part]) -> None:
        """Raises `PlanError` for a part that the model has no sites of."""
        for part in parts:
            self.path(Site(0, part))

    def embed(self, input_ids: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch pos embedding"]:
        """Token embeddings, before positions or scaling are added."""
        return cast(Tensor, self.embeddings(input_ids))

    def begin(
        self, embeds: Float[Tensor, "batch pos embedding"], positions: Int[Tensor, "batch pos"] | None = None
    ) -> BlockInputs:
        """The inputs of a run over `embeds`.

        Rows are padded on the right: no mask is needed, since no position sees a later one. Where tokens stand at other
        `positions` than their places in the row, the inputs are for blocks inside `attention_by`, which mind the masks.
        Raises `ModelError` for a row that is longer than the model's table of positions.
        """
        if positions is None and self.positions is not None and embeds.shape[1] > self.positions:
            raise ModelError(
                f"{type(self.model).__name__}: a prompt with its answer has {embeds.shape[1]} tokens, the model's "
                f"positions end at {self.positions}; set prompt.max_tokens below that, and shorten or drop the example"
            )
        elsewhere = {} if positions is None else self._standing_at(positions, embeds)
        with self._standing_still() as blocks, self._only([0]):  # not the whole vocabulary of a row, for nothing
            self.model(inputs_embeds=embeds, use_cache=False, logits_to_keep=1, **elsewhere)
        calls = [cast(Call, block.call) for block in blocks]
        if self._adapted:
            calls = self._for_adapters(calls, embeds.shape[1], positions)
        return BlockInputs(cast(Tensor, blocks[0].entered), tuple(calls))

    @torch.no_grad()
    def reach(self, length: int) -> tuple[Bool[Tensor, "query key"], ...]:
        """By block, the positions that each position sees in a sequence of that length; equal ones are one object."""
        ids = torch.zeros(1, length, dtype=torch.long, device=self.device)
        block_inputs = self.begin_with_masks(self.embed(ids))
        masks: list[Tensor] = []
        for layer in range(self.layers):
            seen = block_inputs.allowed(layer)
            masks.append(next((mask for mask in masks if torch.equal(mask, seen)), seen))
        return tuple(masks)

    def run(self, hidden: Hidden, start: int, stop: int, block_inputs: BlockInputs) -> Hidden:
        """The states that leave block `stop - 1` when `hidden` enters block `start`."""
        with torch.autocast(self.device.type, torch.bfloat16) if self.rounded else nullcontext():
            for layer in range(start, stop):
                args, kwargs = block_inputs.calls[layer]
                with self._own_attention(layer, block_inputs):
                    out = self.blocks[layer](hidden, *args, **kwargs)
                hidden = out[0] if self.layout.pairs else out
        return hidden

    def asks(self, layer: int, hidden: Hidden, block_inputs: BlockInputs, *, queries: bool = True) -> Heads:
        """The queries, keys and values of a block, and nothing further of it.

        Without `queries` these are zeros where the family has a projection of their own for them.
        """
        asking = self.layout.asking
        with silent(self.blocks[layer], () if queries or len(asking) == 1 else asking[:1]):
            return asked(self.model, lambda: self.run(hidden, layer, layer + 1, block_inputs))

    def run_at(
        self, layer: int, hidden: Hidden, chosen: Int[Tensor, "batch chosen"], block_inputs: BlockInputs, attend: Attend
    ) -> Float[Tensor, "batch chosen hidden"]:
        """The states that leave a block at some positions of each row; of the others only keys and values are computed.

        `attend` is asked by the chosen positions, with the keys and values of all.
        """
        all_positions = self.asks(layer, hidden, block_inputs, queries=False)
        all_rows = torch.arange(len(hidden), device=hidden.device)[:, None]

        def of_all(heads: Heads) -> Mixed:
            return attend(Heads(heads.query, all_positions.key, all_positions.value, heads.scale, heads.softcap))

        with silent(self.blocks[layer], self.layout.asking[1:]), attention_by(self.model, of_all):
            return self.run(hidden[all_rows, chosen], layer, layer + 1, block_inputs.at(chosen))

    def begin_with_masks(self, embeds: Float[Tensor, "batch pos embedding"]) -> BlockInputs:
        """As `begin`, with every mask that is not plainly causal written out, whatever attention the model uses."""
        if self._adapted:
            return self.begin(embeds)
        with implementation(self.model, "sdpa"):
            return self.begin(embeds)

    def logits(
        self, hidden: Float[Tensor, "row hidden"], words: Sequence[int] | None = None
    ) -> Float[Tensor, "row vocabulary"]:
        """Next-token logits of states that left the last block; of the tokens `words` only, where given."""
        width = cast(Tensor, self.embeddings.weight).shape[1]
        embeds = torch.zeros(len(hidden), 1, width, dtype=self.model.dtype, device=hidden.device)
        anywhere = self._standing_at(torch.zeros(len(hidden), 1, dtype=torch.long, device=hidden.device), embeds)
        with self._standing_still(leaving=hidden[:, None]), self._only(words):
            return cast(Tensor, self.model(inputs_embeds=embeds, use_cache=False, **anywhere).logits[:, 0])

    @contextmanager
    def _only(self, words: Sequence[int] | None) -> Iterator[None]:
        """The model with an output layer of some tokens' rows; these get the gradients, where the layer trains."""
        output_layer = self.model.get_output_embeddings()
        if words is None:
            yield
            return
        self.model.set_output_embeddings(_Rows(output_layer, words))
        try:
            yield
        finally:
            self.model.set_output_embeddings(output_layer)

    @contextmanager
    def _standing_still(self, leaving: Tensor | None = None) -> Iterator[list[_Placeholder]]:
        modules = self.blocks._modules
        real = dict(modules)
        placeholders = {
            name: _Placeholder(block, pairs=self.layout.pairs) for name, block in real.items() if block is not None
        }
        for placeholder in placeholders.values():
            placeholder.leaving = leaving
        modules.update(placeholders)
        try:
            yield list(placeholders.values())
        finally:
            modules.update(real)

    def _standing_at(self, positions: Int[Tensor, "batch pos"], embeds: Tensor) -> dict[str, Tensor]:
        """What tells a model its tokens' positions, and that it need make no mask: one of four dimensions is kept.

        A model with a bias of positions takes neither: `_for_adapters` tells it.
        """
        if self._biased:
            return {}
        return {"position_ids": positions, "attention_mask": embeds.new_zeros(1, 1, 1, 1)}

    def _for_adapters(
        self, calls: Sequence[Call], length: int, positions: Int[Tensor, "batch pos"] | None
    ) -> list[Call]:
        """The blocks' arguments as `attention_adapters` read them.

        Masks are true where something is seen, and None where that is all up to oneself; a bias of positions is
        [row, position, head], so that it can be cut to some positions like all else.
        """
        adapters = [adapter for _, adapter in self._adapted]
        bias_arguments: dict[str, Tensor] = {}
        if self._biased:
            at = torch.arange(length, device=self.device)[None] if positions is None else positions
            bias = adapters[0].bias(self.model, int(at.max()) + 1)
            bias_arguments[adapters[0].bias_keyword] = cast(Tensor, bias)[at]
        masks: dict[int | None, Tensor | None] = {None: None}
        for module, adapter in self._adapted if positions is None else ():
            window = adapter.window(module)
            if window is not None and window < length and window not in masks:
                masks[window] = window_mask(length, window, self.device)
        windows = [adapter.window(module) for module, adapter in self._adapted]
        return [
            (args, {**kwargs, **bias_arguments, "attention_mask": masks.get(window)})
            for (args, kwargs), window in zip(calls, windows, strict=True)
        ]

    @contextmanager
    def _own_attention(self, layer: int, block_inputs: BlockInputs) -> Iterator[None]:
        """Attention as the model has it, where `attention_by` does not say otherwise.

        An adapter's arguments are for ours alone, so that it is ours there, too.
        """
        if not self._adapted or is_ours(self.model):
            yield
            return
        with attention_by(self.model, partial(mix, allowed=block_inputs.allowed(layer))):
            yield
