"""Scores and paired differences over several seeds, from predictions alone.

All seeds answer the same sentences, so seeds and sentences cross. A resample therefore draws seeds, and draws
sentences once for all of them: new sentences for each seed would take their luck for averaged away.
Source: Owen 2007, "The pigeonhole bootstrap". Resampling S seeds holds (S - 1) / S of their variance, half with two.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from absa_edit.errors import DataError
from absa_edit.evaluation.scoring import Questions, answers_of, question_of
from absa_edit.resampling import (
    METRICS,
    Metric,
    Pair,
    bootstrap_weights,
    corrected_by_family,
    difference,
    generators,
    percentile_interval,
)
from absa_edit.results import Comparison, Interval, Pooled, Prediction

BySeed = Mapping[int, Sequence[Prediction]]
"""Predictions of one method on one test set, by seed."""
Rows = Mapping[str, Mapping[str, BySeed]]
"""By method, then by test set."""


@dataclass(frozen=True, slots=True)
class SeedScore:
    """Mean scores of one method on one test set over seeds; `n` counts examples, not answers."""

    seeds: tuple[int, ...]
    """Ascending; with one, the intervals are over sentences only."""
    accuracy: Interval
    macro_f1: Interval
    log_loss: Interval
    per_seed: dict[str, tuple[float, ...]]
    """By metric, in the order of `seeds`."""


@dataclass(frozen=True, slots=True)
class SeedComparison(Comparison):
    """Mean paired difference a - b over the seeds that both have.

    The interval holds the luck of the seed and of the sentences; `p` that of the sentences, for these seeds.
    """

    seeds: tuple[int, ...]
    per_seed: tuple[float, ...]
    """Difference of each seed, in the order of `seeds`."""


def seed_score(rows: BySeed, *, draws: int, rng: np.random.Generator) -> SeedScore:
    """Means over seeds with 95 % intervals; for one seed what `score` gives from the same `rng`.

    Raises `DataError` when the seeds did not answer the same examples.
    """
    seeds = tuple(sorted(rows))
    aligned = _aligned([rows[s] for s in seeds], [f"seed {s}" for s in seeds])
    weights = bootstrap_weights(_sentences(aligned), draws, rng)
    times = _seed_times(len(seeds), draws, rng)
    intervals, per_seed = {}, {}
    for name, metric in METRICS.items():
        statistics = _statistics(metric, aligned)
        values = metric.value(statistics.sum(0))
        resampled = _mean(metric.value(np.tensordot(weights, statistics, 1)), times)
        intervals[name] = percentile_interval(float(values.mean()), resampled, len(statistics))
        per_seed[name] = tuple(float(v) for v in values)
    return SeedScore(seeds, intervals["accuracy"], intervals["macro_f1"], intervals["log_loss"], per_seed)


def seed_difference(metric: str, a: BySeed, b: BySeed, *, draws: int, rng: np.random.Generator) -> SeedComparison:
    """Mean over seeds of metric(a) - metric(b), paired by seed and sentence; `p_corrected` is `p` still.

    The permutation swaps the two methods' predictions in whole sentences, the same ones for every seed. For one
    seed the figures are those of `paired_difference` from the same `rng`.
    Source: Yeh 2000; (hits + 1) / (draws + 1) as in Phipson and Smyth 2010.
    """
    seeds, pair, first, second = _paired(METRICS[metric], a, b)
    result = difference(METRICS[metric], [pair], draws, rng)
    times = _seed_times(len(seeds), draws, rng)
    d = percentile_interval(float(result.per_seed.mean()), _mean(result.resampled, times), result.n)
    return SeedComparison(
        first.method, second.method, first.test, metric, d.value, d.low, d.high, result.p, result.p, d.n,
        seeds, tuple(float(v) for v in result.per_seed),
    )  # fmt: skip


def _paired(metric: Metric, a: BySeed, b: BySeed) -> tuple[tuple[int, ...], Pair, Prediction, Prediction]:
    """The seeds, what both methods answered for them, and a prediction of each method.

    Raises `DataError` where seeds or examples differ.
    """
    seeds = tuple(sorted(a))
    if seeds != tuple(sorted(b)):
        raise DataError(f"seeds {_listed(a)} beside seeds {_listed(b)}: expected the same seeds; give those of both")
    aligned = _aligned([rows[s] for rows in (a, b) for s in seeds], [f"seed {s}" for s in seeds * 2])
    of_a, of_b = aligned[: len(seeds)], aligned[len(seeds) :]
    pair = Pair(_statistics(metric, of_a), _statistics(metric, of_b), _sentences(aligned))
    return seeds, pair, of_a[0][0], of_b[0][0]


def compare_seeds(
    pairs: Iterable[tuple[str, str]], rows: Rows, questions: Questions, *, draws: int, rng: np.random.Generator
) -> tuple[SeedComparison, ...]:
    """Paired differences of each pair of methods on each test set and metric.

    A pair is compared on the seeds that both methods have for the test set, and left out where there are none. Those in
    one metric on the test sets of one question are corrected together.
    """
    comparisons, use = [], generators(rng)
    for a, b in pairs:
        for test in rows[a]:
            if seeds := _seeds_of_both(rows, a, b, [test]):
                mine, theirs = ({s: rows[name][test][s] for s in seeds} for name in (a, b))
                comparisons += [seed_difference(m, mine, theirs, draws=draws, rng=use[m]) for m in METRICS]
    families = [(c.metric, question_of(c.test, questions)) for c in comparisons]
    adjusted = corrected_by_family([c.p for c in comparisons], families)
    return tuple(replace(c, p_corrected=p) for c, p in zip(comparisons, adjusted, strict=True))


def pool(
    pairs: Iterable[tuple[str, str]], rows: Rows, questions: Questions, *, draws: int, rng: np.random.Generator
) -> tuple[Pooled, ...]:
    """Paired differences of each pair of methods in each metric, in the mean over the test sets of each question.

    Questions of one test set are left out: `compare_seeds` answers them.
    Over the seeds that both methods have for all of them; a pair is left out of a question where there are none. The
    pairs in one metric and question are corrected together.
    """
    results, use = [], generators(rng)
    for a, b in pairs:
        for question, tests in questions.items():
            if len(tests) < 2:
                continue
            seeds = _seeds_of_both(rows, a, b, tests)
            if not seeds:
                continue
            for name, metric in METRICS.items():
                strata = [
                    _paired(metric, *({s: rows[method][test][s] for s in seeds} for method in (a, b)))[1]
                    for test in tests
                ]
                result = difference(metric, strata, draws, use[name])
                times = _seed_times(len(seeds), draws, use[name])
                d = percentile_interval(float(result.per_seed.mean()), _mean(result.resampled, times), result.n)
                p = result.p
                results.append(Pooled(a, b, question, tuple(tests), name, d.value, d.low, d.high, p, p, d.n))
    adjusted = corrected_by_family([r.p for r in results], [(r.metric, r.question) for r in results])
    return tuple(replace(r, p_corrected=p) for r, p in zip(results, adjusted, strict=True))


def _seeds_of_both(rows: Rows, a: str, b: str, tests: Sequence[str]) -> list[int]:
    """The seeds that both methods have for all of the test sets."""
    by_test = (rows[method].get(test, {}).keys() for method in (a, b) for test in tests)
    return sorted(set.intersection(*map(set, by_test)))


def _aligned(all_rows: Sequence[Sequence[Prediction]], names: Sequence[str]) -> list[list[Prediction]]:
    """All rows in the order of the first; they must be of the same examples."""
    if not all_rows or not all_rows[0]:
        raise DataError("no predictions: expected at least one seed with one example; run it again")
    aligned = []
    for rows, name in zip(all_rows, names, strict=True):
        by_id = {r.id: r for r in rows}
        where = f"{all_rows[0][0].test}: {rows[0].method if rows else 'a method'}, {name}"
        if len(by_id) != len(rows):
            raise DataError(f"{where} has {len(rows)} predictions of {len(by_id)} examples: expected one an example")
        expected = {_question(r) for r in all_rows[0]}
        different = expected ^ {_question(r) for r in rows}
        if different:
            ids = sorted({question[0] for question in different})
            raise DataError(
                f"{where} answers other examples than {all_rows[0][0].method}, {names[0]}: {len(ids)} differ, the "
                f"first is {ids[0]!r}; expected one test set for all seeds, so run them again on the same data"
            )
        aligned.append([by_id[r.id] for r in all_rows[0]])
    return aligned


def _question(row: Prediction) -> tuple[str, ...]:
    """What must agree between two predictions of one example."""
    return row.id, row.sentence_id, row.text, row.aspect, row.gold


def _sentences(aligned: Sequence[Sequence[Prediction]]) -> list[str]:
    return [r.sentence_id for r in aligned[0]]


def _statistics(metric: Metric, aligned: Sequence[Sequence[Prediction]]) -> Float[np.ndarray, "example seed statistic"]:
    return np.stack([metric.statistics(answers_of(rows)) for rows in aligned], axis=1)


def _seed_times(seeds: int, draws: int, rng: np.random.Generator) -> Float[np.ndarray, "draw seed"]:
    """How often each seed is in each resample of as many seeds; one seed always once, without a draw."""
    if seeds == 1:
        return np.ones((draws, 1))
    return rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=draws).astype(np.float64)


def _mean(values: Float[np.ndarray, "draw seed"], times: Float[np.ndarray, "draw seed"]) -> Float[np.ndarray, " draw"]:
    return np.asarray((values * times).sum(-1) / times.sum(-1))


def _listed(rows: BySeed) -> str:
    return ", ".join(map(str, sorted(rows))) or "none"
