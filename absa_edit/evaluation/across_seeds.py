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
from absa_edit.evaluation.scoring import labels_of
from absa_edit.resampling import (
    METRICS,
    bootstrap_weights,
    confusions,
    corrected,
    label_numbers,
    percentile_interval,
    sentence_groups,
)
from absa_edit.results import Comparison, Interval, Prediction

BySeed = Mapping[int, Sequence[Prediction]]
"""Predictions of one method on one test set, by seed."""


@dataclass(frozen=True, slots=True)
class SeedScore:
    """Mean scores of one method on one test set over seeds; `n` counts examples, not answers."""

    seeds: tuple[int, ...]
    """Ascending; with one, the intervals are over sentences only."""
    accuracy: Interval
    macro_f1: Interval
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
    tables = _tables(aligned)
    resampled = np.tensordot(bootstrap_weights(_sentences(aligned), draws, rng), tables, 1)
    times = _seed_times(len(seeds), draws, rng)
    intervals, per_seed = {}, {}
    for name, metric in METRICS.items():
        values = metric(tables.sum(0))
        intervals[name] = percentile_interval(float(values.mean()), _mean(metric(resampled), times), len(tables))
        per_seed[name] = tuple(float(v) for v in values)
    return SeedScore(seeds, intervals["accuracy"], intervals["macro_f1"], per_seed)


def seed_difference(metric: str, a: BySeed, b: BySeed, *, draws: int, rng: np.random.Generator) -> SeedComparison:
    """Mean over seeds of metric(a) - metric(b), paired by seed and sentence; `p_corrected` is `p` still.

    The permutation swaps the two methods' predictions in whole sentences, the same ones for every seed. For one
    seed the figures are those of `paired_difference` from the same `rng`.
    Source: Yeh 2000; (hits + 1) / (draws + 1) as in Phipson and Smyth 2010.
    """
    seeds = tuple(sorted(a))
    if seeds != tuple(sorted(b)):
        raise DataError(f"seeds {_listed(a)} beside seeds {_listed(b)}: expected the same seeds; give those of both")
    aligned = _aligned([rows[s] for rows in (a, b) for s in seeds], [f"seed {s}" for s in seeds * 2])
    first, second = aligned[0][0], aligned[len(seeds)][0]
    tables_a, tables_b = _tables(aligned[: len(seeds)]), _tables(aligned[len(seeds) :])
    score, sentences = METRICS[metric], _sentences(aligned)
    total_a, total_b = tables_a.sum(0), tables_b.sum(0)
    per_seed = score(total_a) - score(total_b)
    difference = float(per_seed.mean())

    weights = bootstrap_weights(sentences, draws, rng)
    resampled = score(np.tensordot(weights, tables_a, 1)) - score(np.tensordot(weights, tables_b, 1))

    groups = sentence_groups(sentences)
    step = np.zeros((int(groups.max()) + 1, *tables_a.shape[1:]))
    np.add.at(step, groups, tables_b - tables_a)
    swapped = np.tensordot(rng.integers(0, 2, size=(draws, len(step))).astype(np.float64), step, 1)
    permuted = (score(total_a + swapped) - score(total_b - swapped)).mean(-1)
    p = (int((np.abs(permuted) >= abs(difference) - 1e-12).sum()) + 1) / (draws + 1)

    times = _seed_times(len(seeds), draws, rng)
    d = percentile_interval(difference, _mean(resampled, times), len(tables_a))
    return SeedComparison(
        first.method, second.method, first.test, metric, d.value, d.low, d.high, p, p, d.n,
        seeds, tuple(float(v) for v in per_seed),
    )  # fmt: skip


def compare_seeds(
    pairs: Iterable[tuple[str, str]],
    rows: Mapping[str, Mapping[str, BySeed]],
    *,
    draws: int,
    rng: np.random.Generator,
) -> tuple[SeedComparison, ...]:
    """Paired differences of each pair of methods on each test set and metric, corrected together.

    `rows[method][test][seed]` are predictions. A pair is compared on the seeds that both methods have for the test
    set, and left out where there are none.
    """
    comparisons = []
    for a, b in pairs:
        for test, mine in rows[a].items():
            theirs = rows[b].get(test, {})
            both = sorted(mine.keys() & theirs.keys())
            if not both:
                continue
            pair = {s: mine[s] for s in both}, {s: theirs[s] for s in both}
            comparisons += [seed_difference(metric, *pair, draws=draws, rng=rng) for metric in METRICS]
    adjusted = corrected([c.p for c in comparisons])
    return tuple(replace(c, p_corrected=p) for c, p in zip(comparisons, adjusted, strict=True))


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


def _tables(aligned: Sequence[Sequence[Prediction]]) -> Float[np.ndarray, "example seed gold predicted"]:
    """One confusion matrix an example and seed."""
    labels = labels_of(aligned[0])
    gold = label_numbers([r.gold for r in aligned[0]], labels)
    predicted = (label_numbers([r.predicted for r in rows], labels) for rows in aligned)
    return np.stack([confusions(gold, given, len(labels)) for given in predicted], axis=1)


def _seed_times(seeds: int, draws: int, rng: np.random.Generator) -> Float[np.ndarray, "draw seed"]:
    """How often each seed is in each resample of as many seeds; one seed always once, without a draw."""
    if seeds == 1:
        return np.ones((draws, 1))
    return rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=draws).astype(np.float64)


def _mean(values: Float[np.ndarray, "draw seed"], times: Float[np.ndarray, "draw seed"]) -> Float[np.ndarray, " draw"]:
    return np.asarray((values * times).sum(-1) / times.sum(-1))


def _listed(rows: BySeed) -> str:
    return ", ".join(map(str, sorted(rows))) or "none"
