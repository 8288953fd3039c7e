"""Scores against scikit-learn; comparisons that are paired, signed and corrected."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, log_loss

from absa_edit.evaluation.scoring import compare, development_scores, score
from absa_edit.resampling import corrected
from absa_edit.results import Comparison, Prediction
from absa_edit.tasks.absc import POLARITIES

NAMES = [p.value for p in POLARITIES]


def rows(gold, predicted, method: str = "m", per_sentence: int = 2, test: str = "t") -> tuple[Prediction, ...]:
    """Answers that give the predicted label 0.6."""
    return tuple(
        Prediction(
            method,
            test,
            f"{i}",
            f"s{i // per_sentence}",
            "",
            "",
            POLARITIES[g],
            POLARITIES[p],
            {name: 0.6 if name == NAMES[p] else 0.2 for name in NAMES},
        )
        for i, (g, p) in enumerate(zip(gold, predicted, strict=True))
    )


@pytest.mark.parametrize("labels", [1, 2, 3])
@pytest.mark.parametrize("seed", range(3))
def test_equals_scikit_learn(seed, labels) -> None:
    rng = np.random.default_rng(seed)
    gold, predicted = rng.integers(0, labels, 60), rng.integers(0, 3, 60)
    made = score(rows(gold, predicted), draws=50, rng=rng)
    each = f1_score(gold, predicted, labels=[0, 1, 2], average=None, zero_division=0)
    assert made.accuracy.value == pytest.approx(accuracy_score(gold, predicted))
    assert made.macro_f1.value == pytest.approx(each.mean())
    assert list(made.f1) == NAMES
    assert list(made.f1.values()) == pytest.approx(list(each))
    assert made.confusion == tuple(map(tuple, confusion_matrix(gold, predicted, labels=[0, 1, 2]).tolist()))
    probabilities = np.where(np.eye(3)[predicted] == 1, 0.6, 0.2)
    assert made.log_loss.value == pytest.approx(log_loss(gold, probabilities, labels=[0, 1, 2]))
    assert made.accuracy.n == made.macro_f1.n == made.log_loss.n == 60
    for interval in (made.accuracy, made.macro_f1, made.log_loss):
        assert interval.low <= interval.value <= interval.high


def test_all_right_on_one_class_is_a_third(rng) -> None:
    made = score(rows([1] * 6, [1] * 6), draws=20, rng=rng)
    assert made.accuracy.value == 1.0
    assert made.macro_f1.value == pytest.approx(1 / 3)
    assert made.f1 == {"positive": 0.0, "negative": 1.0, "neutral": 0.0}


def two(seed: int, better: float = 0.85) -> dict[str, dict[str, tuple[Prediction, ...]]]:
    rng = np.random.default_rng(seed)
    gold = rng.integers(0, 3, 200)
    a = np.where(rng.random(200) < better, gold, (gold + 1) % 3)
    b = np.where(rng.random(200) < 0.6, gold, (gold + 2) % 3)
    return {"a": {"t": rows(gold, a, "a")}, "b": {"t": rows(gold, b, "b")}}


def one(pair: tuple[str, str], data, seed: int = 1) -> tuple[Comparison, ...]:
    return compare([pair], data, {}, draws=999, rng=np.random.default_rng(seed))


def test_turning_a_pair_round_turns_the_sign() -> None:
    data = two(0)
    for forward, back in zip(one(("a", "b"), data), one(("b", "a"), data), strict=True):
        assert forward.difference == pytest.approx(-back.difference)
        assert (forward.low, forward.high) == (pytest.approx(-back.high), pytest.approx(-back.low))
        assert forward.p == back.p
        assert forward.metric == back.metric


def test_difference_is_that_of_the_scores(rng) -> None:
    data = two(0)
    a, b = (score(data[m]["t"], draws=10, rng=rng) for m in "ab")
    by_accuracy, by_f1, by_loss = one(("a", "b"), data)
    assert (by_accuracy.metric, by_f1.metric, by_loss.metric) == ("accuracy", "macro_f1", "log_loss")
    assert by_loss.difference == pytest.approx(a.log_loss.value - b.log_loss.value)
    assert by_loss.difference < 0 < by_f1.difference
    assert by_accuracy.difference == pytest.approx(a.accuracy.value - b.accuracy.value)
    assert by_f1.difference == pytest.approx(a.macro_f1.value - b.macro_f1.value)
    assert by_accuracy.low < by_accuracy.difference < by_accuracy.high
    assert by_accuracy.n == 200


def test_p_values_are_sane() -> None:
    large, none = one(("a", "b"), two(0)), one(("a", "b"), two(0, better=0.6))
    assert all(c.p == 1 / 1000 for c in large)
    assert all(c.p > 0.05 for c in none)
    same = two(0)
    assert all(c.p == 1.0 and c.difference == 0.0 for c in one(("a", "a"), same))


def test_each_question_is_corrected_by_itself() -> None:
    gold = [0, 1, 2] * 60
    data = {
        m: {t: rows(gold, np.random.default_rng([i, k]).integers(0, 3, 180), m, test=t) for k, t in enumerate("tuv")}
        for i, m in enumerate("abc")
    }
    questions = {"own test": ("t",), "out of domain": ("u", "v")}
    found = compare([("a", "b"), ("a", "c")], data, questions, draws=199, rng=np.random.default_rng(0))
    assert [(c.a, c.b) for c in found] == [("a", "b")] * 9 + [("a", "c")] * 9
    for metric in ("accuracy", "macro_f1", "log_loss"):
        for tests in questions.values():
            family = [c for c in found if c.metric == metric and c.test in tests]
            assert len(family) == 2 * len(tests)
            assert [c.p_corrected for c in family] == corrected([c.p for c in family])
    assert any(c.p < c.p_corrected for c in found)


def test_no_pairs_no_comparisons() -> None:
    assert compare([], {}, {}, draws=10, rng=np.random.default_rng(0)) == ()


def test_different_examples_are_an_error() -> None:
    data = two(0)
    data["b"]["t"] = data["b"]["t"][::-1]
    with pytest.raises(ValueError, match="a and b were scored on different examples of t"):
        one(("a", "b"), data)


def test_development_scores_are_those_of_the_predictions(rng) -> None:
    gold, logits = rng.integers(0, 3, 30), rng.normal(size=(30, 3))
    log_probabilities = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    made = development_scores(log_probabilities, gold)
    assert made["dev_accuracy"] == pytest.approx(accuracy_score(gold, logits.argmax(1)))
    assert made["dev_macro_f1"] == pytest.approx(
        f1_score(gold, logits.argmax(1), labels=[0, 1, 2], average="macro", zero_division=0)
    )
    assert made["dev_log_loss"] == pytest.approx(log_loss(gold, np.exp(log_probabilities), labels=[0, 1, 2]))
