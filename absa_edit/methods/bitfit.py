"""BitFit: the biases alone."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel

from absa_edit.context import Context
from absa_edit.errors import SettingsError
from absa_edit.methods.adapted_model import AdaptedModel
from absa_edit.methods.base import Method, first_block, method
from absa_edit.methods.settings import MethodSettings
from absa_edit.model.block_runner import BlockRunner
from absa_edit.records import EditPlan


@dataclass
class BitFit(MethodSettings):
    """Every bias of the blocks and norms."""

    lr: float = 2e-3


@method("bitfit")
class Biases(Method):
    """The biases of all projections and norms train: as many parameters as these have outputs.

    The output layer's own bias, which some families have, is left alone. Source: Ben Zaken et al. 2021 (arXiv
    2106.10199).
    """

    settings = BitFit

    def check(self, runner: BlockRunner, plan: EditPlan | None, settings: MethodSettings) -> None:
        if not _biases(runner.model):
            raise SettingsError(
                f"method {self.name} trains biases, and {type(runner.model).__name__} has none; take another method"
            )

    def linear_in(self, settings: MethodSettings) -> str:
        return ""

    def apply(self, ctx: Context, plan: EditPlan | None, settings: MethodSettings) -> AdaptedModel:
        model = ctx.copy_of_model().float()
        biases = [bias.requires_grad_(True) for bias in _biases(model)]
        touched = sum(bias.numel() for bias in biases)
        return AdaptedModel(self.name, model, lr={"weights": settings.lr}, start=first_block(model), touched=touched)


def _biases(model: PreTrainedModel) -> list[nn.Parameter]:
    output_layer = {id(p) for p in model.get_output_embeddings().parameters()}
    return [p for name, p in model.named_parameters() if name.endswith("bias") and id(p) not in output_layer]
