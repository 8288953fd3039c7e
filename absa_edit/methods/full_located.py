"""Every weight of the located layers."""

from __future__ import annotations

from dataclasses import dataclass

from absa_edit.context import Context
from absa_edit.methods.adapted_model import AdaptedModel
from absa_edit.methods.base import Method, method
from absa_edit.methods.settings import LocatedSettings, MethodSettings
from absa_edit.model.block_runner import BlockRunner
from absa_edit.records import EditPlan


@dataclass
class FullLocated(LocatedSettings):
    """Every weight of the located layers."""

    lr: float = 2e-4


@method("full_located")
class LocatedLayers(Method):
    """The layers of the plan's sites train whole: all matrices, norms and biases of their blocks."""

    settings = FullLocated
    needs_plan = True

    def layers_together(self, settings: MethodSettings) -> bool:
        return True

    def linear_in(self, settings: MethodSettings) -> str:
        return ""

    def apply(self, ctx: Context, plan: EditPlan | None, settings: MethodSettings) -> AdaptedModel:
        assert plan is not None  # needs_plan
        runner = BlockRunner(ctx.copy_of_model().float())
        weights = [p.requires_grad_(True) for layer in plan.layers() for p in runner.blocks[layer].parameters()]
        touched = sum(weight.numel() for weight in weights)
        start, lr = min(plan.layers()), {"weights": settings.lr}
        return AdaptedModel(self.name, runner.model, plan=plan, lr=lr, start=start, touched=touched)
