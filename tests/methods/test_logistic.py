"""The regression against scikit-learn's, and against a search without derivatives where that has no such thing."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression

from absa_edit.methods.logistic import contrasts, log_loss, logits, regress


def data(rng: np.random.Generator, examples: int = 60, inputs: int = 5, labels: int = 3):
    features, gold = rng.normal(size=(examples, inputs)), rng.integers(labels, size=examples)
    features[np.arange(examples), gold] += 1.0
    return features, gold


@pytest.mark.parametrize("labels", [2, 3, 5])
def test_contrasts_are_orthonormal_and_sum_to_0(labels) -> None:
    basis = contrasts(labels)
    np.testing.assert_allclose(basis.T @ basis, np.eye(labels - 1), atol=1e-12)
    np.testing.assert_allclose(basis.sum(0), 0, atol=1e-12)


@pytest.mark.parametrize("labels", [3, 4])
def test_equals_scikit_learns(rng, labels) -> None:
    features, gold = data(rng, labels=labels)
    l2 = 0.05
    (found,) = regress([features], [np.eye(labels - 1)], np.zeros((60, labels)), gold, l2)
    expected = LogisticRegression(C=1 / (60 * l2), fit_intercept=False, tol=1e-9, max_iter=2000).fit(features, gold)
    np.testing.assert_allclose(contrasts(labels) @ found.T, expected.coef_, atol=2e-4)
    values = logits([features], [np.eye(labels - 1)], np.zeros((60, labels)), [found])
    np.testing.assert_allclose(np.exp(log_softmax(values, 1)), expected.predict_proba(features), atol=1e-4)
    loss = -expected.predict_log_proba(features)[range(60), gold].mean()
    assert log_loss(values, gold) == pytest.approx(loss, abs=1e-5)


def test_two_groups_on_offsets_equal_a_plain_search(rng) -> None:
    features, gold = data(rng)
    groups, effects = [features[:, :2], features[:, 2:]], [rng.normal(size=(2, 2)) for _ in range(2)]
    offsets, basis, l2 = rng.normal(size=(60, 3)), contrasts(3), 0.1

    def objective(flat: np.ndarray) -> float:
        first, second = flat[:4].reshape(2, 2), flat[4:].reshape(3, 2)
        values = offsets.copy()
        for row in range(60):
            for group, weights, effect in zip(groups, (first, second), effects, strict=True):
                values[row] += basis @ (effect @ (weights.T @ group[row]))
        return -log_softmax(values, 1)[range(60), gold].mean() + l2 / 2 * (flat**2).sum()

    expected = minimize(objective, np.zeros(10), method="BFGS", options={"gtol": 1e-6}).x
    found = regress(groups, effects, offsets, gold, l2)
    np.testing.assert_allclose(np.concatenate([w.ravel() for w in found]), expected, atol=1e-4)
    elsewhere = regress(groups, effects, offsets, gold, l2, start=[np.ones((2, 2)), -np.ones((3, 2))])
    np.testing.assert_allclose(np.concatenate([w.ravel() for w in elsewhere]), expected, atol=1e-4)
