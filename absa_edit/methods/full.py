"""Full fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass

from absa_edit.context import Context
from absa_edit.methods.adapted_model import AdaptedModel
from absa_edit.methods.base import Method, method
from absa_edit.methods.settings import MethodSettings
from absa_edit.records import EditPlan


@dataclass
class Full(MethodSettings):
    """Every weight."""

    lr: float = 2e-4


@method("full")
class FullFineTuning(Method):
    """Every weight trains."""

    settings = Full

    def apply(self, ctx: Context, plan: EditPlan | None, settings: MethodSettings) -> AdaptedModel:
        model = ctx.copy_of_model().float().requires_grad_(True)
        return AdaptedModel(self.name, model, lr={"weights": settings.lr}, start=-1, touched=model.num_parameters())
