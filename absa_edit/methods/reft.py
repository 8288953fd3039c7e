"""LoReFT: a low-rank edit of the residual stream at one position of the prompt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from absa_edit.data.prompts import Prompt
from absa_edit.errors import DataError, PlanError
from absa_edit.model.block_runner import BlockRunner
from absa_edit.model.hooks import edited
from absa_edit.records import Part, Role, Site


class LoReFT(nn.Module):
    """h + R^T (W h + b - R h), with the rows of R orthonormal.

    W starts as R and b as 0, so that an untrained edit changes nothing. (pyreft starts W at random.)
    Source: Wu et al. 2024 (arXiv 2404.03592), equation 2.
    """

    def __init__(self, width: int, rank: int) -> None:
        super().__init__()
        self.rows = nn.Parameter(nn.init.orthogonal_(torch.empty(rank, width)))
        """What R is made of: where they are orthonormal, R itself."""
        self.source = nn.Linear(width, rank)
        with torch.no_grad():
            self.source.weight.copy_(self.rotation())
            self.source.bias.zero_()

    def rotation(self) -> Float[Tensor, "rank width"]:
        """R: each of `rows` made orthogonal to those before it, and of length 1.

        By QR: torch's own `parametrizations.orthogonal` multiplies Householder reflections, whose gradient is slower.
        """
        q, r = torch.linalg.qr(self.rows.T)
        return cast(Tensor, (q * r.diagonal().sign()).T)

    def forward(self, hidden: Float[Tensor, "row hidden"]) -> Float[Tensor, "row hidden"]:
        with torch.autocast(hidden.device.type, enabled=False):  # R is orthonormal in float32 only
            state = hidden.float()
            rotation = self.rotation()
            change = (self.source(state) - state @ rotation.T) @ rotation
            return cast(Tensor, (state + change).to(hidden.dtype))


def check_rank(runner: BlockRunner, rank: int, key: str) -> None:
    """Raises `PlanError`, naming the setting `key`, for a rank that the model's states cannot have."""
    width = runner.model.config.hidden_size
    if not 1 <= rank <= width:
        raise PlanError(f"{key}={rank}: expected 1 to {width}")


class RepresentationEdit(nn.Module):
    """A LoReFT for each of some blocks' outputs, acting at the last token that has the role `position`."""

    def __init__(self, layers: Sequence[int], width: int, rank: int, position: Role) -> None:
        super().__init__()
        self.layers = tuple(layers)
        self.rank = rank
        self.position = position
        self.edits = nn.ModuleList(LoReFT(width, rank) for _ in layers)

    def by_layer(self) -> dict[int, LoReFT]:
        """The edit of each layer."""
        return {layer: cast(LoReFT, edit) for layer, edit in zip(self.layers, self.edits, strict=True)}

    def at(self, prompt: Prompt) -> int:
        """The token of `prompt` where the edit acts.

        Raises `DataError` when no token has the role.
        """
        positions = prompt.positions(self.position)
        if not positions:
            raise DataError(
                f"example {prompt.example.id}: no token has the role {self.position.value}, where the representation "
                "edit acts; choose another method.edit.position"
            )
        return positions[-1]

    @contextmanager
    def on(self, runner: BlockRunner, prompt: Prompt) -> Iterator[None]:
        """Edit every run of `runner` over rows that all begin with `prompt` inside the block.

        A run that goes on from a cache of the prompt, a token at a time, has been edited when that was made.
        """
        at = self.at(prompt)
        with ExitStack() as stack:
            for layer, edit in self.by_layer().items():
                block = runner.module(Site(layer, Part.block))
                stack.enter_context(edited(block, lambda hidden, edit=edit: _edit(hidden, at, edit)))  # type: ignore[misc]
            yield


def _edit(hidden: Tensor, at: int, edit: LoReFT) -> Tensor:
    if hidden.shape[1] <= at:
        return hidden
    rows = torch.arange(len(hidden), device=hidden.device)
    where = (rows, torch.full_like(rows, at))
    return hidden.index_put(where, edit(hidden[where]))
