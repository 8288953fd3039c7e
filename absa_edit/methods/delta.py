"""The located weight matrices, trained in full."""

from __future__ import annotations

from dataclasses import dataclass

from absa_edit.context import Context
from absa_edit.errors import PlanError
from absa_edit.methods.adapted_model import AdaptedModel
from absa_edit.methods.base import Method, method
from absa_edit.methods.settings import LocatedSettings, MethodSettings
from absa_edit.model.block_runner import BlockRunner
from absa_edit.records import EditPlan


@dataclass
class Delta(LocatedSettings):
    """The located weight matrices, trained in full."""

    lr: float = 2e-4


@method("delta")
class WholeMatrices(Method):
    """The output projections that the plan names train in full."""

    settings = Delta
    needs_plan = True

    def check(self, runner: BlockRunner, plan: EditPlan | None, settings: MethodSettings) -> None:
        if heads := [t.site for t in (plan.targets if plan else ()) if t.site.index is not None]:
            raise PlanError(
                f"{heads[0]}: method {self.name} trains whole matrices; single heads go with rank-limited deltas"
            )

    def linear_in(self, settings: MethodSettings) -> str:
        return ""

    def apply(self, ctx: Context, plan: EditPlan | None, settings: MethodSettings) -> AdaptedModel:
        assert plan is not None  # needs_plan
        runner = BlockRunner(ctx.copy_of_model().float())
        weights = [runner.module(t.site).get_parameter("weight").requires_grad_(True) for t in plan.targets]
        touched = sum(weight.numel() for weight in weights)
        start, lr = min(plan.layers()), {"weights": settings.lr}
        return AdaptedModel(self.name, runner.model, plan=plan, lr=lr, start=start, touched=touched)
