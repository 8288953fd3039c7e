"""Put the edit where an untrained adapter gets the largest gradient."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from absa_edit.context import Context
from absa_edit.localizers.base import SiteScores, localizer
from absa_edit.localizers.examples import LooksAtExamples
from absa_edit.localizers.gradients import SiteGradient, gradient_scores
from absa_edit.localizers.settings import LocateSettings


@localizer("page")
class AdapterGradientEnergy(LooksAtExamples):
    """A site's score is the energy of the gradient that an adapter of `locate.rank` gets in its first step, by example.

    With B = 0 that of A is 0, and that of B is G A^T, where G is the gradient of the matrix. A is drawn from
    U(-1/sqrt(inputs), 1/sqrt(inputs)), as PEFT draws it, so that the energy's mean over such draws is
    rank / (3 inputs) ||G||^2: this is taken, and no single draw, whose scatter is as large as the energy itself where
    few tokens make the gradient. Source: PAGE of DomLoRA, Zhang et al. 2026 (arXiv 2605.06183); derived from its
    description. Cost: a forward and a backward pass an example.
    """

    def score(self, ctx: Context, settings: LocateSettings) -> SiteScores:
        def energy(gradient: SiteGradient) -> Float[Tensor, " row"]:
            return gradient.energy() * settings.rank / (3 * gradient.inputs.shape[-1])

        return gradient_scores(ctx, settings, energy)
