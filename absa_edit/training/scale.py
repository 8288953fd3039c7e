"""How far to go along what training changed: one factor, chosen on development data once the training is done.

In the simplest form of task vectors (Ilharco et al. 2022, arXiv 2212.04089): base + factor (trained - base).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

log = logging.getLogger("absa_edit")

FACTORS = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5)


def choose_scale(
    trained: Mapping[str, Tensor], untrained: Mapping[str, Tensor], evaluate: Callable[[], dict[str, float]]
) -> tuple[float, dict[str, float]]:
    """The factor with the least `dev_log_loss`, and the scores with it; `trained` is left multiplied by it.

    The tensors are those that the model's change is linear in; `untrained` are the same ones before training.
    """
    ends = {name: tensor.detach().clone() for name, tensor in trained.items()}

    def scored(factor: float) -> dict[str, float]:
        with torch.no_grad():
            for name, tensor in trained.items():
                tensor.copy_(torch.lerp(untrained[name].to(tensor), ends[name], factor))
        return evaluate()

    scores = {factor: scored(factor) for factor in FACTORS}
    best = min(scores, key=lambda factor: scores[factor]["dev_log_loss"])
    return best, scored(best)
