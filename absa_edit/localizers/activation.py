"""Put the edit where components write most at the aspect or where the answer is read."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from absa_edit.context import Context
from absa_edit.localizers.base import SiteScores, localizer
from absa_edit.localizers.examples import LooksAtExamples
from absa_edit.localizers.settings import LocateSettings
from absa_edit.localizers.states import Component, lengths, token_scores
from absa_edit.records import Role

VIEWS = ((Role.aspect,), (Role.sentence,), (Role.last,))


@localizer("activation")
class ActivationNorm(LooksAtExamples):
    """A site's score is the norm of what it adds to the residual stream, at the aspect or at the last token.

    Whichever is larger on average counts. Of sentences that are asked about as a whole it is that at their words in
    place of the aspect. Source: Act-LoRA (Information 17(3) 283, 2026), by layers. Cost: a forward pass an example.
    """

    def score(self, ctx: Context, settings: LocateSettings) -> SiteScores:
        return SiteScores(*token_scores(ctx, settings, _norm, VIEWS))


def _norm(component: Component) -> Float[Tensor, "row pos"]:
    return lengths(component.written)
