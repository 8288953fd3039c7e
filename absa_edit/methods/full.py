"""Full fine-tuning."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from transformers import PreTrainedModel

from absa_edit.context import Context
from absa_edit.methods.adapted_model import AdaptedModel
from absa_edit.methods.base import Method, method
from absa_edit.methods.settings import MethodSettings
from absa_edit.records import EditPlan

log = logging.getLogger("absa_edit")


@dataclass
class Full(MethodSettings):
    """Every weight."""

    lr: float = 2e-4


@method("full")
class FullFineTuning(Method):
    """Every weight trains."""

    settings = Full

    def linear_in(self, settings: MethodSettings) -> str:
        return ""

    def apply(self, ctx: Context, plan: EditPlan | None, settings: MethodSettings) -> AdaptedModel:
        model = ctx.copy_of_model().float().requires_grad_(True)
        _tell_cost(model)
        return AdaptedModel(self.name, model, lr={"weights": settings.lr}, start=-1, touched=model.num_parameters())


def _tell_cost(model: PreTrainedModel) -> None:
    """Log what training every weight takes, and how much of it is the vocabulary's.

    No row of it is left out of the optimiser: where the output layer is the embeddings', a loss over the vocabulary
    gives each row a gradient; a row that gets none still decays with the others where `fit.weight_decay` says so.
    """
    layers = (model.get_input_embeddings(), model.get_output_embeddings())
    vocabulary = {id(p): p.numel() for layer in layers for p in layer.parameters()}  # a shared one counts once
    weights, words = model.num_parameters(), sum(vocabulary.values())
    log.info(
        "full: %s weights train, %s of them (%.0f %%) for a vocabulary of %s; with gradients and AdamW's moments they "
        "take %.1f GB",
        f"{weights:,}", f"{words:,}", 100 * words / weights, f"{model.config.vocab_size:,}", 16 * weights / 1e9,
    )  # fmt: skip
