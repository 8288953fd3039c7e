"""LoReFT: a low-rank edit of the residual stream at some tokens of the prompt."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from absa_edit.data.prompts import Prompt
from absa_edit.errors import DataError, PlanError
from absa_edit.model.answer_logits import StateEdit
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


@dataclass(frozen=True)
class Place:
    """The blocks and the tokens that have a LoReFT: in each of the blocks one, the same at all of the tokens."""

    layers: tuple[int, ...]
    role: Role | None = None
    """The last token that has it."""
    first: int = 0
    """So many tokens from a prompt's first on."""
    last: int = 0
    """So many tokens up to a prompt's last."""

    def at(self, prompt: Prompt) -> list[int]:
        """The tokens but for the `first` ones. Raises `DataError` where the prompt lacks some of them."""
        length = len(prompt.ids)
        if length < self.first + self.last:
            raise DataError(
                f"example {prompt.example.id}: its prompt has {length} tokens, the representation edit acts at "
                f"{self.first + self.last}; choose fewer positions"
            )
        if self.role is None:
            return [*range(length - self.last, length)]
        positions = prompt.positions(self.role)
        if not positions:
            raise DataError(
                f"example {prompt.example.id}: no token has the role {self.role.value}, where the representation "
                "edit acts; choose another position"
            )
        return positions[-1:]


def read_by_answers(layers: Iterable[int], last: int, *, at_last: bool) -> tuple[int, ...]:
    """Those of `layers` where an edit can change an answer: of the block `last` only the last token's state is read."""
    return tuple(layer for layer in layers if layer < last or at_last)


class RepresentationEdit(nn.Module):
    """A LoReFT for each block of each place."""

    def __init__(self, places: Sequence[Place], width: int, rank: int) -> None:
        super().__init__()
        self.places = tuple(places)
        self.rank = rank
        self.edits = nn.ModuleList(LoReFT(width, rank) for place in places for _ in place.layers)

    @property
    def layers(self) -> tuple[int, ...]:
        """The edited layers, ascending, each once."""
        return tuple(sorted({layer for place in self.places for layer in place.layers}))

    @property
    def first(self) -> int:
        """How many tokens from the first on may change in any prompt."""
        return max(place.first for place in self.places)

    def by_layer(self, place: Place) -> dict[int, LoReFT]:
        """The edit of each layer of a place."""
        before = sum(len(other.layers) for other in self.places[: self.places.index(place)])
        return {layer: cast(LoReFT, self.edits[before + i]) for i, layer in enumerate(place.layers)}

    def at(self, prompt: Prompt) -> tuple[int, ...]:
        """The tokens of `prompt` where an edit acts. Raises `DataError` where it lacks some of them."""
        return tuple(sorted({*range(self.first), *(p for place in self.places for p in place.at(prompt))}))

    def state_edits(self, prompts: Sequence[Prompt]) -> list[StateEdit]:
        """The edits as they act in some prompts."""
        return [
            StateEdit(self.by_layer(place), [place.at(prompt) for prompt in prompts], place.first)
            for place in self.places
        ]

    @contextmanager
    def on(self, runner: BlockRunner, prompt: Prompt) -> Iterator[None]:
        """Edit every run of `runner` over rows that all begin with `prompt` inside the block.

        A run that goes on from a cache of the prompt, a token at a time, has been edited when that was made.
        """
        with ExitStack() as stack:
            for place in self.places:
                at = torch.tensor([*range(place.first), *place.at(prompt)], device=runner.device)
                for layer, edit in self.by_layer(place).items():

                    def change(hidden: Tensor, at: Tensor = at, edit: LoReFT = edit) -> Tensor:
                        return _edit(hidden, at, edit) if hidden.shape[1] >= len(prompt.ids) else hidden

                    stack.enter_context(edited(runner.module(Site(layer, Part.block)), change))
            yield


def _edit(
    hidden: Float[Tensor, "row pos hidden"], at: Int[Tensor, " place"], edit: LoReFT
) -> Float[Tensor, "row pos hidden"]:
    rows = torch.arange(len(hidden), device=hidden.device)
    where = (rows.repeat_interleave(len(at)), at.repeat(len(rows)))
    return hidden.index_put(where, edit(hidden[where]))
