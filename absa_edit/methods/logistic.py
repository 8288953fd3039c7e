"""Multinomial logistic regression on top of given logits: convex, so that the same data give the same weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import minimize
from scipy.special import log_softmax

Features = Float[np.ndarray, "example _"]
Weights = Float[np.ndarray, "_ contrast"]
Effect = Float[np.ndarray, "contrast contrast"]


def contrasts(labels: int) -> Float[np.ndarray, "label contrast"]:
    """Orthonormal directions of the logits that sum to 0: all that a softmax over the labels sees."""
    return np.asarray(np.linalg.qr(np.eye(labels)[:, 1:] - 1 / labels)[0])


def regress(
    features: Sequence[Features],
    effects: Sequence[Effect],
    offsets: Float[np.ndarray, "example label"],
    gold: Int[np.ndarray, " example"],
    l2: float,
    start: Sequence[Weights] | None = None,
) -> list[Weights]:
    """Weights R of each group of features that minimise the mean cross-entropy of `logits`, plus l2 / 2 sum |R|^2.

    With one group, effect 1 and no offsets this is the usual regression without intercept. `start` is where to begin.
    """
    _, labels = offsets.shape
    basis = contrasts(labels)
    shapes = [(f.shape[1], labels - 1) for f in features]
    ends = np.cumsum([rows * columns for rows, columns in shapes])[:-1]
    right = np.arange(len(gold)), gold

    def split(flat: np.ndarray) -> list[np.ndarray]:
        return [part.reshape(shape) for part, shape in zip(np.split(flat, ends), shapes, strict=True)]

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        log_probabilities = log_softmax(logits(features, effects, offsets, split(flat)), axis=1)
        error = np.exp(log_probabilities)
        error[right] -= 1
        error = error @ basis / len(gold)
        slopes = [
            f.T @ (error @ effect).astype(f.dtype, copy=False) for f, effect in zip(features, effects, strict=True)
        ]
        slope = np.concatenate([part.ravel() for part in slopes]) + l2 * flat
        return float(l2 / 2 * flat @ flat - log_probabilities[right].mean()), slope

    first = np.zeros(sum(map(np.prod, shapes))) if start is None else np.concatenate([part.ravel() for part in start])
    return split(minimize(objective, first, jac=True, method="L-BFGS-B", options={"maxiter": 500}).x)


def logits(
    features: Sequence[Features],
    effects: Sequence[Effect],
    offsets: Float[np.ndarray, "example label"],
    weights: Sequence[Weights],
) -> Float[np.ndarray, "example label"]:
    """The offsets, moved along the contrasts by what each group of features adds: effect R^T feature."""
    moved = sum(
        (f @ w.astype(f.dtype, copy=False)) @ effect.T for f, w, effect in zip(features, weights, effects, strict=True)
    )
    return np.asarray(offsets + moved @ contrasts(offsets.shape[1]).T)


def log_loss(values: Float[np.ndarray, "example label"], gold: Int[np.ndarray, " example"]) -> float:
    """Mean cross-entropy of logits."""
    return float(-log_softmax(values, axis=1)[np.arange(len(gold)), gold].mean())
