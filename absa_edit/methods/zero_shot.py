"""The base model as it is."""

from __future__ import annotations

from dataclasses import dataclass

from absa_edit.context import Context
from absa_edit.data.prompts import content_free
from absa_edit.methods.adapted_model import AdaptedModel
from absa_edit.methods.base import Method, method
from absa_edit.methods.settings import MethodSettings
from absa_edit.records import EditPlan


@dataclass
class ZeroShot(MethodSettings):
    """The base model as it is."""

    lr: float = 0.0
    calibrate: bool = False
    """Divide each label's probability by its mean over inputs that say nothing ("N/A", "", "[MASK]").
    Source: Zhao et al. 2021 (arXiv 2102.09690)."""


@method("zero_shot")
class Untouched(Method):
    """Nothing trains."""

    settings = ZeroShot
    trains = False

    def apply(self, ctx: Context, plan: EditPlan | None, settings: MethodSettings) -> AdaptedModel:
        assert isinstance(settings, ZeroShot)
        prompt = self.prompt(ctx, settings) or ctx.settings.prompt
        nothing = content_free(ctx.lm.tokenizer, prompt) if settings.calibrate else ()
        return AdaptedModel(self.name, ctx.copy_of_model(), start=ctx.lm.runner.layers, content_free=nothing)
