"""Put the edit where the weights are least tuned to what enters them."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from absa_edit.context import Context
from absa_edit.localizers.base import LowestScores, SiteScores, localizer
from absa_edit.localizers.examples import LooksAtExamples
from absa_edit.localizers.settings import LocateSettings
from absa_edit.localizers.states import OF_THE_EXAMPLE, Component, lengths, token_scores


@localizer("plop")
class FeatureNorm(LooksAtExamples):
    """The sites with the lowest normalised feature norms: ||W x|| over that of a random matrix as large as W.

    For one with entries of variance ||W||^2 / (inputs outputs) that is ||W|| ||x|| / sqrt(inputs), so that 1 is a
    matrix that knows nothing of its inputs. By example, the mean over its tokens after the instruction. Source: PLoP,
    Hayou et al. 2025 (arXiv 2506.20629), which compares kinds of modules; here sites. Cost: a forward pass an example.
    """

    def score(self, ctx: Context, settings: LocateSettings) -> SiteScores:
        return LowestScores(*token_scores(ctx, settings, _feature_norm, [OF_THE_EXAMPLE]))


def _feature_norm(component: Component) -> Float[Tensor, "row pos"]:
    inputs, weight = component.inputs, component.weight
    by_chance: Tensor = weight.square().sum().sqrt() * lengths(inputs) / weight.shape[0] ** 0.5
    return lengths(inputs @ weight) / by_chance.clamp(min=1e-30)
