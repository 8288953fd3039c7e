"""Scores against scikit-learn; comparisons that are paired, signed and corrected."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score

from absa_edit.evaluation.scoring import compare, score
from absa_edit.resampling import corrected
from absa_edit.results import Comparison, Prediction
from absa_edit.tasks.absc import POLARITIES

NAMES = [p.value for p in POLARITIES]


def rows(gold, predicted, method: str = "m", per_sentence: int = 2) -> tuple[Prediction, ...]:
    return tuple(
        Prediction(
            method,
            "t",
            f"{i}",
            f"s{i // per_sentence}",
            "",
            "",
            POLARITIES[g],
            POLARITIES[p],
            dict.fromkeys(NAMES, 1 / 3),
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
    assert made.accuracy.n == made.macro_f1.n == 60
    for interval in (made.accuracy, made.macro_f1):
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
    return compare([pair], data, draws=999, rng=np.random.default_rng(seed))


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
    by_accuracy, by_f1 = one(("a", "b"), data)
    assert (by_accuracy.metric, by_f1.metric) == ("accuracy", "macro_f1")
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


def test_all_comparisons_are_corrected_together() -> None:
    data = two(0, better=0.68)
    data["c"] = two(4)["a"]
    data = {
        m: {"t": rows([0, 1, 2] * 60, np.random.default_rng(i).integers(0, 3, 180), m)} for i, m in enumerate("abc")
    }
    found = compare([("a", "b"), ("a", "c")], data, draws=199, rng=np.random.default_rng(0))
    assert [(c.a, c.b) for c in found] == [("a", "b")] * 2 + [("a", "c")] * 2
    assert [c.p_corrected for c in found] == corrected([c.p for c in found])
    assert all(c.p <= c.p_corrected <= 1 for c in found)


def test_no_pairs_no_comparisons() -> None:
    assert compare([], {}, draws=10, rng=np.random.default_rng(0)) == ()


def test_different_examples_are_an_error() -> None:
    data = two(0)
    data["b"]["t"] = data["b"]["t"][::-1]
    with pytest.raises(ValueError, match="a and b were scored on different examples of t"):
        one(("a", "b"), data)
