"""Put the edit where the loss's gradient is largest."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from absa_edit.context import Context
from absa_edit.localizers.base import SiteScores, localizer
from absa_edit.localizers.examples import LooksAtExamples
from absa_edit.localizers.gradients import SiteGradient, gradient_scores
from absa_edit.localizers.settings import LocateSettings


@localizer("gradient")
class GradientNorm(LooksAtExamples):
    """A site's score is the norm of each example's gradient of its matrix, had all that enters it length 1.

    So no site wins by the scale of its inputs: those that are c times as large, with weights 1 / c times as large, have
    the same score; and no token either. Sources: layers by gradient norm, Aletheia (arXiv 2604.15351); the gradient
    over the inputs' covariance, Xu et al. 2026 (arXiv 2602.04019), of which only the lengths are taken here. Cost: a
    forward and a backward pass an example.
    """

    def score(self, ctx: Context, settings: LocateSettings) -> SiteScores:
        return gradient_scores(ctx, settings, _normalised)


def _normalised(gradient: SiteGradient) -> Float[Tensor, " row"]:
    return replace(gradient, inputs=torch.nn.functional.normalize(gradient.inputs, dim=-1)).energy().sqrt()
