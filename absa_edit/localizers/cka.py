"""Put the edit in the blocks that change what the states of examples have in common."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from absa_edit.context import Context
from absa_edit.errors import PlanError
from absa_edit.localizers.base import SiteScores, localizer
from absa_edit.localizers.examples import LooksAtExamples, OnExamples, prompts_of
from absa_edit.localizers.settings import LocateSettings
from absa_edit.localizers.states import OF_THE_EXAMPLE, shared_by_parts, states_at

FEWEST = 4
"""Examples: of two the similarity is 1 whatever their states, and of the others one is left out in turn."""


@localizer("cka")
class Dissimilarity(LooksAtExamples):
    """A block's score is 1 - CKA of the states that enter and that leave it.

    States are averaged over an example's tokens after the instruction: at the last token alone they would be the same
    in all examples before the first block. CKA (centred kernel alignment, Kornblith et al. 2019, arXiv 1905.00414,
    linear kernel) is a figure of all examples; each example's score is its pseudo-value of the jackknife (Tukey 1958),
    n f(all) - (n - 1) f(all but it), whose mean is that figure without its largest bias, and whose resamples scatter
    like it. All sites of a block have its score. Source: layers by CKA, arXiv 2602.05988. Cost: a forward pass an
    example.
    """

    def check(self, ctx: Context, settings: LocateSettings) -> None:
        super().check(ctx, settings)
        assert isinstance(settings, OnExamples)
        _check_count(min(settings.examples, len(ctx.splits.train.examples)))

    def score(self, ctx: Context, settings: LocateSettings) -> SiteScores:
        prompts = prompts_of(ctx, settings)
        _check_count(len(prompts))
        states = states_at(ctx, prompts, OF_THE_EXAMPLE, settings.kind).double()
        kernels = torch.einsum("idh,jdh->dij", states, states)
        by_layer = np.stack([_pseudo_values(a, b) for a, b in pairwise(kernels)], 1)
        sentences = [p.example.sentence_id for p in prompts]
        return SiteScores.of(shared_by_parts(by_layer, ctx.lm.runner, settings.parts), sentences)


def _check_count(examples: int) -> None:
    if examples < FEWEST:
        raise PlanError(f"locate=cka compares examples, and has {examples}; expected {FEWEST} or more")


def dissimilarity(a: Float[Tensor, "example example"], b: Float[Tensor, "example example"]) -> float:
    """1 - CKA of two kernels of the same examples."""
    first, second = _centred(a), _centred(b)
    return 1 - float((first * second).sum() / (first.norm() * second.norm()).clamp(min=1e-30))


def _centred(kernel: Float[Tensor, "example example"]) -> Float[Tensor, "example example"]:
    return kernel - kernel.mean(0) - kernel.mean(1, keepdim=True) + kernel.mean()


def _pseudo_values(
    a: Float[Tensor, "example example"], b: Float[Tensor, "example example"]
) -> Float[np.ndarray, " example"]:
    n, of_all = len(a), dissimilarity(a, b)
    rest = [torch.arange(n) != i for i in range(n)]
    left_out = np.array([dissimilarity(a[kept][:, kept], b[kept][:, kept]) for kept in rest])
    return n * of_all - (n - 1) * left_out
