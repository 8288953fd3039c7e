"""Intervals and tests against scipy and scikit-learn, and what clustering does to them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.stats
from sklearn.metrics import accuracy_score, brier_score_loss, confusion_matrix, f1_score, log_loss

from absa_edit.resampling import (
    BRIER,
    ECE,
    METRICS,
    Answers,
    Pair,
    accuracy,
    bootstrap_weights,
    class_f1,
    confusions,
    corrected,
    corrected_by_family,
    difference,
    log_losses,
    macro_f1,
    metric_interval,
    paired_difference,
    percentile_interval,
    sentence_groups,
    weighted_means,
)


def answers(gold: np.ndarray, predicted: np.ndarray) -> Answers:
    """Sure answers."""
    return Answers(gold, predicted, np.eye(3)[predicted])


def soft(gold: np.ndarray, rng: np.random.Generator, scale: float = 1.0) -> Answers:
    """Answers with probabilities, better than chance."""
    logits = scale * (rng.normal(size=(len(gold), 3)) + np.eye(3)[gold])
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return Answers(gold, probabilities.argmax(1), probabilities)


def apart(n: int) -> list[str]:
    """Every example a sentence of its own."""
    return [f"s{i}" for i in range(n)]


def test_groups_in_order_of_appearance() -> None:
    assert sentence_groups(["b", "a", "b", "c", "a"]).tolist() == [0, 1, 0, 2, 1]


def test_weights_draw_whole_sentences(rng) -> None:
    weights = bootstrap_weights(["a", "b", "a", "c"], 500, rng)
    assert weights.shape == (500, 4)
    assert (weights[:, 0] == weights[:, 2]).all()
    assert (weights[:, 0] + weights[:, 1] + weights[:, 3] == 3).all()
    np.testing.assert_allclose(weights.mean(0), 1.0, atol=0.15)


def test_interval_equals_scipys_percentile_bootstrap(rng) -> None:
    right = rng.random(200) < 0.7
    gold = np.zeros(200, dtype=np.int64)
    table = confusions(gold, np.where(right, 0, 1), 3)
    resampled = accuracy(np.tensordot(bootstrap_weights(apart(200), 9999, rng), table, 1))
    ours = percentile_interval(float(accuracy(table.sum(0))), resampled, 200)
    theirs = scipy.stats.bootstrap(
        (right.astype(float),), np.mean, n_resamples=9999, method="percentile", rng=np.random.default_rng(5)
    ).confidence_interval
    assert ours.value == pytest.approx(right.mean())
    assert (ours.low, ours.high) == (pytest.approx(theirs.low, abs=0.006), pytest.approx(theirs.high, abs=0.006))


def test_copies_of_a_sentence_do_not_narrow_the_interval(rng) -> None:
    right = (rng.random(60) < 0.6).astype(float)
    one = weighted_means(bootstrap_weights(apart(60), 5000, rng), right)
    ids = [f"s{i // 5}" for i in range(300)]
    five = weighted_means(bootstrap_weights(ids, 5000, rng), np.repeat(right, 5))
    assert np.std(five) == pytest.approx(np.std(one), rel=0.06)


def test_permutation_equals_scipys_on_a_small_case() -> None:
    rng = np.random.default_rng(1)
    gold = rng.integers(0, 3, 12)
    a = np.where(rng.random(12) < 0.9, gold, (gold + 1) % 3)
    b = np.where(rng.random(12) < 0.4, gold, (gold + 2) % 3)
    hits_a, hits_b = (a == gold).astype(float), (b == gold).astype(float)
    exact = scipy.stats.permutation_test(
        (hits_a, hits_b), lambda x, y, axis: np.mean(x - y, axis=axis), permutation_type="samples", n_resamples=np.inf
    )
    interval, p = paired_difference("accuracy", answers(gold, a), answers(gold, b), apart(12), 40000, rng)
    assert interval.value == pytest.approx(exact.statistic)
    assert p == pytest.approx(exact.pvalue, abs=0.01)
    assert 0.005 < p < 0.5


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
def test_permutation_over_sentences_equals_full_enumeration(metric) -> None:
    rng = np.random.default_rng(3)
    gold, a, b = rng.integers(0, 3, (3, 14))
    a = np.where(rng.random(14) < 0.6, gold, a)
    ids = [f"s{i // 2}" for i in range(14)]

    def value(predicted: np.ndarray) -> float:
        if metric == "accuracy":
            return float(accuracy_score(gold, predicted))
        return float(f1_score(gold, predicted, labels=[0, 1, 2], average="macro", zero_division=0))

    observed = abs(value(a) - value(b))
    extreme = []
    for swap in itertools.product([False, True], repeat=7):
        mask = np.repeat(swap, 2)
        x, y = np.where(mask, b, a), np.where(mask, a, b)
        extreme.append(abs(value(x) - value(y)) >= observed - 1e-12)
    _, p = paired_difference(metric, answers(gold, a), answers(gold, b), ids, 20000, rng)
    assert p == pytest.approx(np.mean(extreme), abs=0.015)


def test_equal_predictions_have_no_difference(rng) -> None:
    gold, a = rng.integers(0, 3, (2, 50))
    interval, p = paired_difference("macro_f1", answers(gold, a), answers(gold, a), apart(50), 200, rng)
    assert (interval.value, interval.low, interval.high, p) == (0.0, 0.0, 0.0, 1.0)


def test_p_values_are_uniform_without_a_difference() -> None:
    rng = np.random.default_rng(0)
    found = []
    for _ in range(150):
        gold = rng.integers(0, 3, 80)
        a, b = (np.where(rng.random(80) < 0.7, gold, (gold + 1) % 3) for _ in range(2))
        found.append(paired_difference("macro_f1", answers(gold, a), answers(gold, b), apart(80), 199, rng)[1])
    assert scipy.stats.kstest(found, "uniform").pvalue > 0.01
    assert min(found) >= 1 / 200


def test_scores_equal_scikit_learn(rng) -> None:
    for labels in (1, 2, 3):  # with one and two, some labels are neither gold nor predicted
        gold, predicted = rng.integers(0, labels, (2, 40))
        table = confusions(gold, predicted, 3).sum(0)
        np.testing.assert_array_equal(table, confusion_matrix(gold, predicted, labels=[0, 1, 2]))
        assert accuracy(table) == pytest.approx(accuracy_score(gold, predicted))
        each = f1_score(gold, predicted, labels=[0, 1, 2], average=None, zero_division=0)
        np.testing.assert_allclose(class_f1(table), each)
        assert macro_f1(table) == pytest.approx(each.mean())


def test_absent_classes_count_as_zero() -> None:
    """All right on one class alone: a third, not 1."""
    gold = np.zeros(5, dtype=np.int64)
    assert float(macro_f1(confusions(gold, gold, 3).sum(0))) == pytest.approx(1 / 3)


def test_means_leave_out_nan(rng) -> None:
    values = np.array([[1.0, np.nan], [3.0, np.nan]])
    weights = np.array([[1.0, 1.0], [3.0, 1.0]])
    np.testing.assert_array_equal(weighted_means(weights, values), [[2.0, np.nan], [1.5, np.nan]])


def test_undefined_resamples_are_left_out() -> None:
    interval = percentile_interval(0.5, np.array([np.nan, 0.4, 0.6, np.nan]), 9)
    assert (interval.low, interval.high, interval.n) == (pytest.approx(0.405), pytest.approx(0.595), 9)
    empty = percentile_interval(0.5, np.array([np.nan]), 9)
    assert (empty.low, empty.high) == (0.5, 0.5)


def test_log_loss_and_brier_score_equal_scikit_learn(rng) -> None:
    gold = rng.integers(0, 3, 60)
    given = soft(gold, rng)
    weights = bootstrap_weights(apart(60), 50, rng)
    loss, brier = (metric_interval(metric, given, weights) for metric in (METRICS["log_loss"], BRIER))
    assert loss.value == pytest.approx(log_loss(gold, given.probabilities, labels=[0, 1, 2]))
    expected = brier_score_loss(gold, given.probabilities, labels=[0, 1, 2], scale_by_half=False)
    assert brier.value == pytest.approx(expected)
    assert loss.low < loss.value < loss.high
    assert brier.low < brier.value < brier.high


def test_an_impossible_gold_label_costs_the_floor() -> None:
    sure = answers(np.array([0, 1]), np.array([1, 1]))
    np.testing.assert_allclose(log_losses(sure), [-np.log(1e-12), 0.0])


def test_calibration_error_by_hand() -> None:
    """Two answers of one bin, 0.9 and 0.92 sure, one of them right; one of another, 0.5 sure and right."""
    probabilities = np.array([[0.9, 0.1, 0.0], [0.92, 0.08, 0.0], [0.5, 0.3, 0.2]])
    given = Answers(np.array([0, 1, 0]), probabilities.argmax(1), probabilities)
    expected = (abs(0.9 + 0.92 - 1) + abs(0.5 - 1)) / 3
    assert ECE.value(ECE.statistics(given).sum(0)) == pytest.approx(expected)
    certain = answers(np.array([0, 1, 2, 2]), np.array([0, 1, 2, 0]))
    assert ECE.value(ECE.statistics(certain).sum(0)) == pytest.approx(0.25)


def test_a_resample_is_the_metric_of_the_drawn_examples(rng) -> None:
    gold = rng.integers(0, 3, 40)
    given = soft(gold, rng)
    weights = bootstrap_weights([f"s{i // 2}" for i in range(40)], 5, rng)
    for metric in (*METRICS.values(), BRIER, ECE):
        for row in weights:
            drawn = np.repeat(np.arange(40), row.astype(int))
            copies = Answers(given.gold[drawn], given.predicted[drawn], given.probabilities[drawn])
            assert metric.value(row @ metric.statistics(given)) == pytest.approx(
                float(metric.value(metric.statistics(copies).sum(0)))
            )


@pytest.mark.parametrize("name", METRICS)
def test_pooled_difference_equals_full_enumeration(name) -> None:
    """Two test sets of four and five sentences, each weighing the same: all 2^9 swaps of whole sentences."""
    rng, metric = np.random.default_rng(7), METRICS[name]
    sets = []
    for sentences in (4, 5):
        gold = rng.integers(0, 3, 2 * sentences)
        sets.append((soft(gold, rng, 2.0), soft(gold, rng, 0.5), [f"s{i // 2}" for i in range(2 * sentences)]))

    def mixed(mine: Answers, theirs: Answers, swap: np.ndarray) -> float:
        probabilities = np.where(swap[:, None], theirs.probabilities, mine.probabilities)
        predicted = np.where(swap, theirs.predicted, mine.predicted)
        return float(metric.value(metric.statistics(Answers(mine.gold, predicted, probabilities)).sum(0)))

    def mean(swaps: tuple[bool, ...]) -> float:
        by_set = (np.repeat(swaps[:4], 2), np.repeat(swaps[4:], 2))
        return float(np.mean([mixed(a, b, s) - mixed(b, a, s) for (a, b, _), s in zip(sets, by_set, strict=True)]))

    observed = mean((False,) * 9)
    extreme = [abs(mean(s)) >= abs(observed) - 1e-12 for s in itertools.product([False, True], repeat=9)]
    pairs = [Pair(metric.statistics(a)[:, None], metric.statistics(b)[:, None], ids) for a, b, ids in sets]
    result = difference(metric, pairs, 20000, rng)
    assert result.per_seed == pytest.approx([observed])
    assert result.p == pytest.approx(np.mean(extreme), abs=0.015)
    assert 0.01 < result.p < 0.99
    assert result.n == 18


def test_pooled_resamples_draw_within_each_test_set(rng) -> None:
    """Their spread is that of a mean of independent means; a set of one sentence adds none."""
    metric = METRICS["log_loss"]
    golds = [rng.integers(0, 3, n) for n in (60, 90)]
    both = [[soft(gold, rng) for _ in "ab"] for gold in golds]
    pairs = [
        Pair(*(metric.statistics(x)[:, None] for x in two), apart(len(gold)))
        for two, gold in zip(both, golds, strict=True)
    ]
    alone = [difference(metric, [pair], 4000, rng).resampled.std() for pair in pairs]
    together = difference(metric, pairs, 4000, rng).resampled.std()
    assert together == pytest.approx(np.hypot(*alone) / 2, rel=0.06)
    lone = Pair(pairs[0].a[:1], pairs[0].b[:1], ["s"])
    assert difference(metric, [lone, pairs[1]], 4000, rng).resampled.std() == pytest.approx(alone[1] / 2, rel=0.06)


def test_families_are_corrected_by_themselves() -> None:
    p, families = [0.04, 0.5, 0.01, 0.03, 0.02], ["x", "y", "x", "x", "y"]
    assert corrected_by_family(p, families) == pytest.approx([0.04, 0.5, 0.03, 0.04, 0.04])


def test_correction_by_hand() -> None:
    assert corrected([0.04, 0.01, 0.03]) == pytest.approx([0.04, 0.03, 0.04])
    assert corrected([]) == []
