"""Put the edit where most of the principal weights are, with no data at all."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from absa_edit.context import Context
from absa_edit.localizers.base import Localizer, SiteScores, localizer
from absa_edit.localizers.plan import kinds_of
from absa_edit.localizers.settings import LocateSettings
from absa_edit.localizers.states import weight_of
from absa_edit.records import Site

SHARE = 0.05
"""Of all weights that are principal ones, as in the paper."""
REDUCTION = 32
"""Rank after reduction: the smaller side of the matrix over this, 128 for 4096."""


@localizer("principal")
class PrincipalWeights(Localizer):
    """A site's score is the share of its weights that are principal: largest in size once the rank is reduced.

    Principal are the twentieth part of the weights of all matrices in `locate.parts`, each of reduced rank, taken
    together; the paper takes so many of each matrix, by which no site would come before another. Source: LIFT, Liu et
    al. 2025 (arXiv 2506.00772). A plan's stability is 1: there are no examples to resample. Cost: no pass; a singular
    value decomposition of each matrix.
    """

    def score(self, ctx: Context, settings: LocateSettings) -> SiteScores:
        runner = ctx.lm.runner
        modules = {
            (part, layer): _reduced(weight_of(runner, Site(layer, part))).abs()
            for part in settings.parts
            for layer in range(runner.layers)
        }
        sizes = torch.cat([reduced.flatten() for reduced in modules.values()])
        threshold = sizes.kthvalue(max(1, round((1 - SHARE) * len(sizes)))).values
        shares = np.array(
            [
                [
                    float((modules[part, layer][runner.inputs(Site(layer, part, index))] > threshold).float().mean())
                    for layer in range(runner.layers)
                ]
                for part, index in kinds_of(runner, settings.parts)
            ]
        )
        return SiteScores.of(shares[None], ["all"])


def _reduced(weight: Float[Tensor, "input hidden"]) -> Float[Tensor, "input hidden"]:
    """The nearest matrix of a lower rank."""
    left, values, right = torch.linalg.svd(weight, full_matrices=False)
    rank = max(1, len(values) // REDUCTION)
    reduced: Tensor = (left[:, :rank] * values[:rank]) @ right[:rank]
    return reduced
