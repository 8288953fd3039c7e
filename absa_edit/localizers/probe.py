"""Put the edit in the blocks after which a linear probe reads the label better than before."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from absa_edit.context import Context
from absa_edit.errors import PlanError
from absa_edit.localizers.base import SiteScores, localizer
from absa_edit.localizers.examples import LooksAtExamples, OnExamples, prompts_of
from absa_edit.localizers.settings import LocateSettings
from absa_edit.localizers.states import shared_by_parts, states_at
from absa_edit.records import Role

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Of the probes, as shares of the mean squared length of the centred states; chosen on the training examples."""


@dataclass
class ProbeSettings(OnExamples):
    """Where the edit goes, by probes."""

    examples: int = 500
    """Training examples that the probes learn from, drawn by the seed; all development examples judge them."""


@localizer("probe")
class ProbeGain(LooksAtExamples):
    """A block's score is the accuracy of a probe of the states that leave it, minus that of one of those that enter it.

    On development examples, of the states where the answer is read; losses count as none. The probe is ridge regression
    to the labels, its penalty chosen by the squared errors of the training examples, each left out in turn. All sites
    of a block have its score. Source: linear probes by layer, Alain and Bengio 2016 (arXiv 1610.01644). Cost: a forward
    pass for each example of both kinds.
    """

    settings = ProbeSettings

    def check(self, ctx: Context, settings: LocateSettings) -> None:
        super().check(ctx, settings)
        _check_development(ctx)

    def score(self, ctx: Context, settings: LocateSettings) -> SiteScores:
        _check_development(ctx)
        train, dev = prompts_of(ctx, settings), ctx.encode(ctx.splits.dev)
        number = {label: i for i, label in enumerate(ctx.task.labels)}
        gold, wanted = (torch.tensor([number[p.example.label] for p in prompts]) for prompts in (train, dev))
        states, dev_states = (states_at(ctx, prompts, [Role.last], settings.kind).double() for prompts in (train, dev))
        right = np.stack(
            [_right(states[:, depth], gold, dev_states[:, depth], wanted).numpy() for depth in range(states.shape[1])],
            1,
        ).astype(np.float64)
        gains = shared_by_parts(np.diff(right, axis=1), ctx.lm.runner, settings.parts)
        return SiteScores.of(gains, [p.example.sentence_id for p in dev])


def _check_development(ctx: Context) -> None:
    if not ctx.splits.dev.examples:
        raise PlanError("locate=probe judges its probes on development examples, and there are none")


def _right(
    states: Float[Tensor, "example hidden"],
    gold: Int[Tensor, " example"],
    dev_states: Float[Tensor, "other hidden"],
    wanted: Int[Tensor, " other"],
) -> Bool[Tensor, " other"]:
    """Which development examples a probe of the training examples reads right."""
    middle, targets = states.mean(0), torch.nn.functional.one_hot(gold).double()
    centred, shifted = states - middle, targets - targets.mean(0)
    values, vectors = torch.linalg.eigh(centred @ centred.T)
    values, turned = values.clamp(min=0), vectors.T @ shifted
    best = min(PENALTIES, key=lambda share: _left_out_error(values, vectors, shifted, share))
    duals = vectors @ (turned / (values + best * values.sum() / len(values)).clamp(min=1e-30)[:, None])
    scores = (dev_states - middle) @ centred.T @ duals + targets.mean(0)
    return torch.eq(scores.argmax(1), wanted)


def _left_out_error(
    values: Float[Tensor, " example"],
    vectors: Float[Tensor, "example example"],
    targets: Float[Tensor, "example label"],
    share: float,
) -> float:
    """The mean squared error of each example by the others' regression (Allen's PRESS), but for the centring."""
    kept = values / (values + share * values.sum() / len(values)).clamp(min=1e-30)
    hat = (vectors * kept) @ vectors.T
    left_out = (targets - hat @ targets) / (1 - hat.diagonal()).clamp(min=1e-9)[:, None]
    return float(left_out.square().mean())
