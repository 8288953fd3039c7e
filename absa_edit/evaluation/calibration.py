"""How far probabilities can be trusted, and the one temperature that makes them fit development data."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import brentq

from absa_edit.evaluation.scoring import answers_of
from absa_edit.resampling import (
    BRIER,
    ECE,
    METRICS,
    Answers,
    Weights,
    bootstrap_weights,
    metric_interval,
    percentile_interval,
)
from absa_edit.results import COVERAGES, Prediction, Reliability, Temperature

LOWEST, HIGHEST = 0.05, 20.0
"""Bounds of a temperature: development data that are all answered right would ask for 0, all wrong for infinity."""

Scores = Float[np.ndarray, "example label"]
"""Log-probabilities, normalised over the labels."""


def fit_temperature(scores: Scores, gold: Int[np.ndarray, " example"]) -> Temperature:
    """The temperature with the lowest log-loss, from `LOWEST` to `HIGHEST`.

    The loss is convex in 1 / T, so that its minimum is where the derivative is 0.
    Source: Guo et al. 2017 (arXiv 1706.04599), section 4.2.
    """
    of_gold = scores[np.arange(len(gold)), gold]

    def slope(inverse: float) -> float:
        """The derivative of the log-loss by 1 / T: the mean score that the model expects minus the gold label's."""
        return float(((np.exp(with_temperature(scores, 1 / inverse)) * scores).sum(1) - of_gold).mean())

    if slope(1 / HIGHEST) >= 0:
        value = HIGHEST
    elif slope(1 / LOWEST) <= 0:
        value = LOWEST
    else:
        value = 1 / brentq(slope, 1 / HIGHEST, 1 / LOWEST)
    before, after = (_log_loss(with_temperature(scores, t), gold) for t in (1.0, value))
    return Temperature(value, len(gold), before, after)


def with_temperature(scores: Scores, temperature: float) -> Scores:
    """The scores divided by the temperature and normalised again: above 1 less sure, below 1 surer."""
    scaled = scores / temperature
    return np.asarray(scaled - np.logaddexp.reduce(scaled, axis=1, keepdims=True))


def reliability(
    rows: Sequence[Prediction], *, draws: int, rng: np.random.Generator, temperature: float = 1.0
) -> Reliability:
    """Log-loss, Brier score, calibration error and risk by coverage, with 95 % sentence-bootstrap intervals.

    Those of the predictions as they are, or with a temperature; which label is likeliest does not depend on it.
    """
    answers = answers_of(rows)
    if temperature != 1:
        scores = np.log(np.maximum(answers.probabilities, np.finfo(np.float64).tiny))
        answers = Answers(answers.gold, answers.predicted, np.exp(with_temperature(scores, temperature)))
    weights = bootstrap_weights([r.sentence_id for r in rows], draws, rng)
    loss, brier, ece = (metric_interval(metric, answers, weights) for metric in (METRICS["log_loss"], BRIER, ECE))
    risks = risk_by_coverage(answers, np.ones((1, len(rows))))[0]
    resampled = risk_by_coverage(answers, weights)
    aurc = percentile_interval(float(risks.mean()), _mean_risk(answers, weights, resampled), len(rows))
    at = (risks[max(1, round(coverage * len(rows))) - 1] for coverage in COVERAGES)
    return Reliability(loss, brier, ece, aurc, tuple(float(risk) for risk in at))


def risk_by_coverage(answers: Answers, weights: Weights) -> Float[np.ndarray, "draw example"]:
    """Share of wrong answers among the 1, 2, ... most confident examples, counted as often as they are drawn.

    Examples whose confidence is the same stay in their order. Before the first one that is drawn there is no risk: 0.
    Source: El-Yaniv and Wiener 2010; its mean is the area under the curve of Geifman et al. 2019 (arXiv 1805.08206).
    """
    order = _surest_first(answers)
    drawn = weights[:, order]
    wrong = (drawn * (answers.predicted != answers.gold)[order]).cumsum(1)
    count = drawn.cumsum(1)
    return np.asarray(np.divide(wrong, count, out=np.zeros_like(wrong), where=count > 0))


def _mean_risk(
    answers: Answers, weights: Weights, risks: Float[np.ndarray, "draw example"]
) -> Float[np.ndarray, " draw"]:
    """The area under each resample's curve: an example that is drawn several times counts so often."""
    drawn = weights[:, _surest_first(answers)]
    return np.asarray((drawn * risks).sum(1) / drawn.sum(1))


def _surest_first(answers: Answers) -> Int[np.ndarray, " example"]:
    return np.argsort(-answers.probabilities.max(1), kind="stable")


def _log_loss(scores: Scores, gold: Int[np.ndarray, " example"]) -> float:
    return float(-scores[np.arange(len(gold)), gold].mean())
