"""Intervals and tests that resample sentences, because two aspects of one sentence are not independent."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import false_discovery_control

from absa_edit.results import Interval

Weights = Float[np.ndarray, "draw example"]


def sentence_groups(sentence_ids: Sequence[str]) -> Int[np.ndarray, " example"]:
    """The number of each example's sentence, counted from 0 in order of first appearance."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(s, len(numbers)) for s in sentence_ids], dtype=np.int64)


def bootstrap_weights(sentence_ids: Sequence[str], draws: int, rng: np.random.Generator) -> Weights:
    """How often each example is in each resample of as many sentences as there are.

    Source: cluster bootstrap, Davison and Hinkley 1997, section 3.8.
    """
    groups = sentence_groups(sentence_ids)
    sentences = int(groups.max()) + 1
    times = rng.multinomial(sentences, np.full(sentences, 1 / sentences), size=draws)
    return times[:, groups].astype(np.float64)


def weighted_means(weights: Weights, values: Float[np.ndarray, "example *rest"]) -> Float[np.ndarray, "draw *rest"]:
    """Mean of `values` over examples in each resample; nan entries are left out of their mean."""
    known = ~np.isnan(values)
    flat = np.where(known, values, 0.0).reshape(len(values), -1)
    sums = weights @ flat
    with np.errstate(invalid="ignore", divide="ignore"):
        means = sums / (weights @ known.reshape(len(values), -1).astype(np.float64))
    return np.asarray(means.reshape(len(weights), *values.shape[1:]))


def percentile_interval(value: float, resampled: Float[np.ndarray, " draw"], n: int, level: float = 0.95) -> Interval:
    """`value` with the percentile interval of its resamples; resamples where it is undefined are left out."""
    defined = resampled[~np.isnan(resampled)]
    if not len(defined):
        return Interval(float(value), float(value), float(value), n)
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(value), float(low), float(high), n)


def label_numbers(given: Sequence[str], labels: Sequence[str]) -> Int[np.ndarray, " example"]:
    """The given labels as numbers in the order of `labels`."""
    number = {label: n for n, label in enumerate(labels)}
    return np.array([number[label] for label in given], dtype=np.int64)


def confusions(
    gold: Int[np.ndarray, " example"], predicted: Int[np.ndarray, " example"], labels: int
) -> Float[np.ndarray, "example gold predicted"]:
    """One confusion matrix an example: a single 1 at (gold, predicted)."""
    table = np.zeros((len(gold), labels, labels))
    table[np.arange(len(gold)), gold, predicted] = 1.0
    return table


def accuracy(confusion: Float[np.ndarray, "*draw gold predicted"]) -> Float[np.ndarray, "*draw"]:
    """Share on the diagonal."""
    return np.asarray(np.trace(confusion, axis1=-2, axis2=-1) / confusion.sum((-2, -1)))


def class_f1(confusion: Float[np.ndarray, "*draw gold predicted"]) -> Float[np.ndarray, "*draw label"]:
    """F1 of each label; 0 for a label that is neither gold nor predicted."""
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    total = confusion.sum(-1) + confusion.sum(-2)
    return np.asarray(np.divide(2 * hits, total, out=np.zeros_like(hits), where=total > 0))


def macro_f1(confusion: Float[np.ndarray, "*draw gold predicted"]) -> Float[np.ndarray, "*draw"]:
    """Mean F1 over all labels, absent ones counted as 0."""
    return np.asarray(class_f1(confusion).mean(-1))


METRICS = {"accuracy": accuracy, "macro_f1": macro_f1}


def paired_difference(
    metric: str,
    gold: Int[np.ndarray, " example"],
    a: Int[np.ndarray, " example"],
    b: Int[np.ndarray, " example"],
    labels: int,
    sentence_ids: Sequence[str],
    draws: int,
    rng: np.random.Generator,
) -> tuple[Interval, float]:
    """metric(a) - metric(b) with its bootstrap interval, and its two-sided permutation p-value.

    Both resample sentences; the permutation swaps the two methods' predictions in whole sentences.
    Source: Yeh 2000, approximate randomisation; (hits + 1) / (draws + 1) as in Phipson and Smyth 2010.
    """
    score = METRICS[metric]
    table_a, table_b = confusions(gold, a, labels), confusions(gold, b, labels)
    difference = float(score(table_a.sum(0)) - score(table_b.sum(0)))

    weights = bootstrap_weights(sentence_ids, draws, rng)
    resampled = score(np.tensordot(weights, table_a, 1)) - score(np.tensordot(weights, table_b, 1))

    groups = sentence_groups(sentence_ids)
    step = np.zeros((int(groups.max()) + 1, *table_a.shape[1:]))
    np.add.at(step, groups, table_b - table_a)
    swapped = np.tensordot(rng.integers(0, 2, size=(draws, len(step))).astype(np.float64), step, 1)
    permuted = score(table_a.sum(0) + swapped) - score(table_b.sum(0) - swapped)
    hits = int((np.abs(permuted) >= abs(difference) - 1e-12).sum())
    return percentile_interval(difference, resampled, len(gold)), (hits + 1) / (draws + 1)


def corrected(p_values: Sequence[float]) -> list[float]:
    """Benjamini-Hochberg corrected p-values, in the given order."""
    return [float(p) for p in false_discovery_control(p_values)] if p_values else []
