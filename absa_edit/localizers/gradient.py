"""Put the edit where the loss's gradient is largest."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from absa_edit.context import Context
from absa_edit.localizers.base import SiteScores, localizer
from absa_edit.localizers.examples import LooksAtExamples
from absa_edit.localizers.gradients import SiteGradient, gradient_scores
from absa_edit.localizers.settings import LocateSettings


@localizer("gradient")
class GradientNorm(LooksAtExamples):
    """A site's score is the norm of each example's gradient of its matrix over the norm of what enters it.

    So a site whose inputs are large does not win by their scale alone: inputs c times as large with weights 1 / c times
    as large are the same site, and have the same score. Sources: layers by gradient norm, Aletheia (arXiv 2604.15351);
    the gradient over what the covariance of the inputs tells, Xu et al. (arXiv 2602.04019), here with the trace of that
    covariance in place of its inverse root. Cost: a forward and a backward pass an example.
    """

    def score(self, ctx: Context, settings: LocateSettings) -> SiteScores:
        return gradient_scores(ctx, settings, _normalised)


def _normalised(gradient: SiteGradient) -> Float[Tensor, " row"]:
    reached = gradient.outputs.ne(0).any(-1)  # neither padding nor, in the last block, what no answer is read from
    inputs = gradient.inputs.square().sum(-1).mul(reached).sum(-1)
    return (gradient.energy() / inputs.clamp(min=1e-30)).sqrt()
