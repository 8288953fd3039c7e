"""Edits of what attention heads give: the input of an attention's output projection, scaled and shifted."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from absa_edit.errors import CannotMerge
from absa_edit.model.architectures import output_width
from absa_edit.model.block_runner import BlockRunner
from absa_edit.records import Part, Site

E = TypeVar("E", bound="HeadEdit")


class HeadEdit(nn.Module, ABC):
    """An output projection whose input z, the heads' outputs side by side, is edited: factor * z + offset.

    It stands where the projection stood, so that however a model is run the edit is in it. What trains is float32, and
    so is the edit; z goes on in the dtype that it came in.
    """

    def __init__(self, projection: nn.Module, heads: int) -> None:
        super().__init__()
        self.base_layer = projection
        self.heads = heads
        self.inputs, self.outputs = output_width(projection)

    @property
    def weight(self) -> Tensor:
        """The projection's."""
        return cast(Tensor, self.base_layer.weight)

    @property
    def bias(self) -> Tensor | None:
        """The projection's; None where it has none."""
        return cast("Tensor | None", self.base_layer.bias)

    def zeros(self, *shape: int) -> nn.Parameter:
        """What trains, before it does, beside the projection."""
        return nn.Parameter(torch.zeros(shape, dtype=torch.float32, device=self.weight.device))

    @abstractmethod
    def vectors(self) -> tuple[Float[Tensor, " inputs"] | None, Float[Tensor, " inputs"] | None]:
        """What z is multiplied by, and what is added then; None where nothing is."""

    def forward(self, states: Float[Tensor, "*row inputs"]) -> Float[Tensor, "*row outputs"]:
        factor, offset = self.vectors()
        edited = states.float()
        edited = edited if factor is None else factor * edited
        edited = edited if offset is None else edited + offset
        return cast(Tensor, self.base_layer(edited.to(states.dtype)))

    @torch.no_grad()
    def folded(self) -> nn.Module:
        """The projection alone, with the edit in its weight and bias; summed in float32, cast once.

        Raises `CannotMerge` for an offset where there is no bias.
        """
        factor, offset = self.vectors()
        projection = copy.deepcopy(self.base_layer)
        weight, bias = cast(Tensor, projection.weight), cast("Tensor | None", projection.bias)
        transposed = type(projection).__name__ == "Conv1D"
        matrix = weight.float().T if transposed else weight.float()
        if offset is not None and offset.any():
            if bias is None:
                raise CannotMerge("offsets of heads' outputs go into a bias, and the output projections have none")
            bias.copy_(bias.float() + matrix @ offset)
        if factor is not None:
            scaled = factor * matrix
            weight.copy_(scaled.T if transposed else scaled)
        return projection


def edit_heads(runner: BlockRunner, layers: Iterable[int], edit: Callable[[int, nn.Module], E]) -> dict[int, E]:
    """The edits, by layer, that `edit` makes of some layers' output projections; they take the projections' places."""
    edits = {}
    for layer in layers:
        path = runner.path(Site(layer, Part.attn))
        edits[layer] = edit(layer, runner.model.get_submodule(path)).eval()
        runner.model.set_submodule(path, edits[layer])
    return edits


def without_edits(model: PreTrainedModel) -> PreTrainedModel:
    """A plain copy of the model with the edits in its weights. Raises `CannotMerge` where one fits into none."""
    folded: Mapping[str, nn.Module] = {
        path: module.folded() for path, module in model.named_modules() if isinstance(module, HeadEdit)
    }
    plain = copy.deepcopy(model)
    for path, projection in folded.items():
        plain.set_submodule(path, projection)
    return plain.requires_grad_(False)
