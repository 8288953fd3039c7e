"""Intervals and tests that resample sentences, because two aspects of one sentence are not independent.

A metric is a function of sums over examples (`Metric`), so that one bootstrap and one permutation serve all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import false_discovery_control

from absa_edit.results import Interval

Weights = Float[np.ndarray, "draw example"]

FLOOR = 1e-12
"""Least probability that the log-loss counts a gold label with: one answer costs at most 27.6 nats."""
BINS = 15
"""Of the expected calibration error. Source: Guo et al. 2017 (arXiv 1706.04599)."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What a method answered on a test set; labels are numbers in the task's order."""

    gold: Int[np.ndarray, " example"]
    predicted: Int[np.ndarray, " example"]
    probabilities: Float[np.ndarray, "example label"]
    """Normalised over the labels."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure that is computed from statistics of single examples, summed."""

    statistics: Callable[[Answers], Float[np.ndarray, "example statistic"]]
    value: Callable[[Float[np.ndarray, "*draw statistic"]], Float[np.ndarray, "*draw"]]
    """The figure, from the statistics' sum."""
    lower_is_better: bool = False


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


def metric_interval(metric: Metric, answers: Answers, weights: Weights) -> Interval:
    """The figure of these answers, with the interval that `bootstrap_weights` gives it."""
    statistics = metric.statistics(answers)
    value = float(metric.value(statistics.sum(0)))
    return percentile_interval(value, metric.value(weights @ statistics), len(statistics))


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


def log_losses(answers: Answers) -> Float[np.ndarray, " example"]:
    """-log of the gold label's probability among the labels, in nats; a probability below `FLOOR` counts as it."""
    of_gold = answers.probabilities[np.arange(len(answers.gold)), answers.gold]
    return np.asarray(-np.log(np.maximum(of_gold, FLOOR)))


def brier_scores(answers: Answers) -> Float[np.ndarray, " example"]:
    """Squared distance between the probabilities and the gold label's unit vector, 0 to 2. Source: Brier 1950."""
    truth = np.eye(answers.probabilities.shape[1])[answers.gold]
    return np.asarray(((answers.probabilities - truth) ** 2).sum(1))


def confidence_gaps(answers: Answers) -> Float[np.ndarray, "example bin"]:
    """Highest probability minus 1 where its label is right (else 0), at one of `BINS` equally wide bins."""
    confidence, label = answers.probabilities.max(1), answers.probabilities.argmax(1)
    number = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)  # bins ((i - 1) / BINS, i / BINS]
    gaps = np.zeros((len(confidence), BINS))
    gaps[np.arange(len(confidence)), number] = confidence - (label == answers.gold)
    return gaps


def _counted(values: Float[np.ndarray, "example *rest"]) -> Float[np.ndarray, "example statistic"]:
    """Statistics of a mean: the values, and last a 1 an example."""
    return np.column_stack([values, np.ones(len(values))])


def _confusion_statistics(answers: Answers) -> Float[np.ndarray, "example statistic"]:
    table = confusions(answers.gold, answers.predicted, answers.probabilities.shape[1])
    return table.reshape(len(table), -1)


def _square(sums: Float[np.ndarray, "*draw statistic"]) -> Float[np.ndarray, "*draw gold predicted"]:
    labels = round(sums.shape[-1] ** 0.5)
    return sums.reshape(*sums.shape[:-1], labels, labels)


def _mean(sums: Float[np.ndarray, "*draw statistic"]) -> Float[np.ndarray, "*draw"]:
    return np.asarray(sums[..., 0] / sums[..., -1])


METRICS = {
    "accuracy": Metric(_confusion_statistics, lambda sums: accuracy(_square(sums))),
    "macro_f1": Metric(_confusion_statistics, lambda sums: macro_f1(_square(sums))),
    "log_loss": Metric(lambda answers: _counted(log_losses(answers)), _mean, lower_is_better=True),
}
"""What every method is scored by and compared in."""
BRIER = Metric(lambda answers: _counted(brier_scores(answers)), _mean, lower_is_better=True)
ECE = Metric(
    lambda answers: _counted(confidence_gaps(answers)),
    lambda sums: np.asarray(np.abs(sums[..., :-1]).sum(-1) / sums[..., -1]),
    lower_is_better=True,
)
"""Expected calibration error: how far confidence and accuracy are apart, in the mean over bins."""


@dataclass(frozen=True, slots=True)
class Pair:
    """What two methods answered on the examples of one test set, as a metric's statistics, by seed."""

    a: Float[np.ndarray, "example seed statistic"]
    b: Float[np.ndarray, "example seed statistic"]
    sentence_ids: Sequence[str]


@dataclass(frozen=True, slots=True)
class Difference:
    """A mean over test sets of a metric's difference a - b."""

    per_seed: Float[np.ndarray, " seed"]
    resampled: Float[np.ndarray, "draw seed"]
    """Of sentences drawn anew in each test set, the same ones for every seed."""
    p: float
    """Two-sided, of the mean over seeds."""
    n: int
    """Examples in all test sets."""


def difference(metric: Metric, pairs: Sequence[Pair], draws: int, rng: np.random.Generator) -> Difference:
    """How two methods differ in a metric, in the mean over test sets, each of which weighs the same.

    Both kinds of resample keep to the test sets (strata). The bootstrap draws sentences within each; the permutation
    swaps the two methods' answers in whole sentences, the same ones for every seed.
    Source: Yeh 2000, approximate randomisation; (hits + 1) / (draws + 1) as in Phipson and Smyth 2010.
    """
    per_seed: Float[np.ndarray, " seed"] = np.zeros(pairs[0].a.shape[1])
    resampled = permuted = np.zeros((draws, len(per_seed)))
    for pair in pairs:
        total_a, total_b = pair.a.sum(0), pair.b.sum(0)
        per_seed = per_seed + metric.value(total_a) - metric.value(total_b)

        weights = bootstrap_weights(pair.sentence_ids, draws, rng)
        drawn_a, drawn_b = (metric.value(np.tensordot(weights, x, 1)) for x in (pair.a, pair.b))
        resampled = resampled + drawn_a - drawn_b

        groups = sentence_groups(pair.sentence_ids)
        step = np.zeros((int(groups.max()) + 1, *pair.a.shape[1:]))
        np.add.at(step, groups, pair.b - pair.a)
        swapped = np.tensordot(rng.integers(0, 2, size=(draws, len(step))).astype(np.float64), step, 1)
        permuted = permuted + metric.value(total_a + swapped) - metric.value(total_b - swapped)
    per_seed, resampled, permuted = (x / len(pairs) for x in (per_seed, resampled, permuted))
    hits = int((np.abs(permuted.mean(-1)) >= abs(per_seed.mean()) - 1e-12).sum())
    return Difference(per_seed, resampled, (hits + 1) / (draws + 1), sum(len(pair.a) for pair in pairs))


def paired_difference(
    metric: str, a: Answers, b: Answers, sentence_ids: Sequence[str], draws: int, rng: np.random.Generator
) -> tuple[Interval, float]:
    """metric(a) - metric(b) on one test set with its bootstrap interval, and its two-sided permutation p-value."""
    statistics_a, statistics_b = (METRICS[metric].statistics(answers)[:, None] for answers in (a, b))
    result = difference(METRICS[metric], [Pair(statistics_a, statistics_b, sentence_ids)], draws, rng)
    return percentile_interval(float(result.per_seed[0]), result.resampled[:, 0], result.n), result.p


def generators(rng: np.random.Generator) -> dict[str, np.random.Generator]:
    """The generator of each metric's comparisons: accuracy and macro-F1 share `rng`, any other has one beside it."""
    return {name: rng if name in ("accuracy", "macro_f1") else rng.spawn(1)[0] for name in METRICS}


def corrected(p_values: Sequence[float]) -> list[float]:
    """Benjamini-Hochberg corrected p-values, in the given order."""
    return [float(p) for p in false_discovery_control(p_values)] if p_values else []


def corrected_by_family(p_values: Sequence[float], families: Sequence[object]) -> list[float]:
    """Corrected p-values in the given order, those of each family (`families` names each one's) by themselves."""
    adjusted = [0.0] * len(p_values)
    for family in dict.fromkeys(families):
        members = [i for i, other in enumerate(families) if other == family]
        for i, p in zip(members, corrected([p_values[i] for i in members]), strict=True):
            adjusted[i] = p
    return adjusted
