"""The temperature against a grid, coverage against counts by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import log_loss

from absa_edit.evaluation.calibration import (
    HIGHEST,
    LOWEST,
    fit_temperature,
    reliability,
    risk_by_coverage,
    with_temperature,
)
from absa_edit.resampling import Answers
from absa_edit.results import Prediction

LABELS = ("positive", "negative", "neutral")


def drawn(rng: np.random.Generator, n: int, sharpness: float) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities that are `sharpness` times too sure, and labels drawn from what they should be."""
    logits = rng.normal(scale=1.5, size=(n, 3))
    true = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    gold = np.array([rng.choice(3, p=np.exp(row)) for row in true])
    return with_temperature(true, 1 / sharpness), gold


def predictions(scores: np.ndarray, gold: np.ndarray) -> tuple[Prediction, ...]:
    return tuple(
        Prediction(
            "m", "t", f"{i}", f"s{i // 2}", "", "", LABELS[g], LABELS[int(row.argmax())],
            {label: float(p) for label, p in zip(LABELS, np.exp(row), strict=True)},
        )
        for i, (row, g) in enumerate(zip(scores, gold, strict=True))
    )  # fmt: skip


@pytest.mark.parametrize("sharpness", [0.4, 1.0, 3.0])
def test_the_temperature_undoes_what_is_too_sure(rng, sharpness) -> None:
    scores, gold = drawn(rng, 3000, sharpness)
    fitted = fit_temperature(scores, gold)
    assert fitted.value == pytest.approx(sharpness, rel=0.12)
    grid = np.exp(np.linspace(np.log(LOWEST), np.log(HIGHEST), 400))
    losses = [log_loss(gold, np.exp(with_temperature(scores, t)), labels=[0, 1, 2]) for t in grid]
    assert fitted.fitted_log_loss <= min(losses) + 1e-9
    assert fitted.value == pytest.approx(grid[int(np.argmin(losses))], rel=0.02)
    assert fitted.log_loss == pytest.approx(log_loss(gold, np.exp(scores), labels=[0, 1, 2]))
    assert fitted.n == 3000


def test_data_that_are_all_right_or_all_wrong_meet_the_bounds(rng) -> None:
    scores, _ = drawn(rng, 20, 1.0)
    assert fit_temperature(scores, scores.argmax(1)).value == LOWEST
    assert fit_temperature(scores, scores.argmin(1)).value == HIGHEST


def test_a_temperature_leaves_the_order_and_the_sum() -> None:
    scores = np.log(np.array([[0.7, 0.2, 0.1]]))
    np.testing.assert_allclose(np.exp(with_temperature(scores, 0.5)), [[0.49 / 0.54, 0.04 / 0.54, 0.01 / 0.54]])
    np.testing.assert_allclose(with_temperature(scores, 1.0), scores)


def test_risk_by_coverage_by_hand() -> None:
    """Confidences 0.9 (right), 0.8 (wrong), 0.7 (right), 0.6 (wrong), in another order."""
    first = np.array([0.7, 0.9, 0.6, 0.8])
    probabilities = np.stack([first, 1 - first, np.zeros(4)], 1)
    answers = Answers(np.array([0, 0, 1, 1]), np.zeros(4, dtype=np.int64), probabilities)
    np.testing.assert_allclose(risk_by_coverage(answers, np.ones((1, 4)))[0], [0, 1 / 2, 1 / 3, 2 / 4])
    twice_the_wrong_one = np.array([[1.0, 0.0, 0.0, 2.0]])
    np.testing.assert_allclose(risk_by_coverage(answers, twice_the_wrong_one)[0], [0, 1, 2 / 3, 2 / 3])


def test_a_fitted_temperature_lowers_log_loss_and_calibration_error(rng) -> None:
    scores, gold = drawn(rng, 3000, 3.0)
    rows = predictions(scores, gold)
    plain, cooled = (reliability(rows, draws=200, rng=np.random.default_rng(0), temperature=t) for t in (1.0, 3.0))
    assert cooled.log_loss.high < plain.log_loss.low
    assert cooled.ece.value < 0.3 * plain.ece.value
    assert cooled.brier.value < plain.brier.value
    assert plain.log_loss.value == pytest.approx(log_loss(gold, np.exp(scores), labels=[0, 1, 2]))
    for made in (plain, cooled):
        assert made.aurc.low < made.aurc.value < made.aurc.high
        assert made.risks[0] < made.risks[1] < made.risks[2] == pytest.approx((scores.argmax(1) != gold).mean())


def test_the_surest_half_is_counted(rng) -> None:
    scores, gold = drawn(rng, 100, 1.0)
    surest = np.argsort(-scores.max(1))[:50]
    made = reliability(predictions(scores, gold), draws=10, rng=rng)
    assert made.risks[0] == pytest.approx((scores.argmax(1) != gold)[surest].mean())
