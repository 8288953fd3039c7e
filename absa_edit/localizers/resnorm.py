"""Put the edit where components write most into the residual stream."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from absa_edit.context import Context
from absa_edit.localizers.base import SiteScores, localizer
from absa_edit.localizers.examples import LooksAtExamples
from absa_edit.localizers.settings import LocateSettings
from absa_edit.localizers.states import OF_THE_EXAMPLE, Component, lengths, token_scores


@localizer("resnorm")
class WrittenNorm(LooksAtExamples):
    """A site's score is the norm of what it adds over that of the residual stream that leaves its block.

    By example, the mean over its tokens after the instruction. (The `resnorm` of Xu et al., arXiv 2602.04019, is
    another figure, of gradients: `gradient` comes close to it.) Cost: a forward pass an example.
    """

    def score(self, ctx: Context, settings: LocateSettings) -> SiteScores:
        return SiteScores(*token_scores(ctx, settings, _share, [OF_THE_EXAMPLE]))


def _share(component: Component) -> Float[Tensor, "row pos"]:
    return lengths(component.written) / lengths(component.leaving).clamp(min=1e-30)
