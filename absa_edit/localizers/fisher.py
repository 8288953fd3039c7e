"""Put the edit where the answers' Fisher information is largest."""

from __future__ import annotations

from absa_edit.context import Context
from absa_edit.localizers.base import SiteScores, localizer
from absa_edit.localizers.examples import LooksAtExamples
from absa_edit.localizers.gradients import SiteGradient, gradient_scores
from absa_edit.localizers.settings import LocateSettings


@localizer("fisher")
class FisherInformation(LooksAtExamples):
    """A site's score is the sum over its weights of the squared gradient of log p(gold), by example.

    Their mean is the trace of the empirical Fisher information of the site. Source: FISH mask, Sung et al. 2021 (arXiv
    2111.09839), equation 4, which sums nothing, and takes single weights. Cost: a forward and a backward pass an
    example.
    """

    def score(self, ctx: Context, settings: LocateSettings) -> SiteScores:
        return gradient_scores(ctx, settings, SiteGradient.energy)
