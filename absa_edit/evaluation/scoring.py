"""Scores with intervals and paired comparisons, from predictions alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from absa_edit.records import POLARITIES
from absa_edit.resampling import (
    METRICS,
    bootstrap_weights,
    class_f1,
    confusions,
    corrected,
    label_numbers,
    paired_difference,
    percentile_interval,
)
from absa_edit.results import Comparison, Prediction, Score


def score(rows: Sequence[Prediction], *, draws: int, rng: np.random.Generator) -> Score:
    """Accuracy and macro-F1 with 95 % sentence-bootstrap intervals, F1 per class, confusion."""
    table = confusions(label_numbers([r.gold for r in rows]), label_numbers([r.predicted for r in rows]))
    weights = bootstrap_weights([r.sentence_id for r in rows], draws, rng)
    resampled = np.tensordot(weights, table, 1)
    total = table.sum(0)
    intervals = {
        name: percentile_interval(float(metric(total)), metric(resampled), len(rows))
        for name, metric in METRICS.items()
    }
    return Score(
        intervals["accuracy"],
        intervals["macro_f1"],
        {p.value: float(f) for p, f in zip(POLARITIES, class_f1(total), strict=True)},
        tuple(tuple(int(n) for n in row) for row in total),
    )


def compare(
    pairs: Iterable[tuple[str, str]],
    rows: Mapping[str, Mapping[str, Sequence[Prediction]]],
    *,
    draws: int,
    rng: np.random.Generator,
) -> tuple[Comparison, ...]:
    """Paired differences of each pair of methods on each test set and metric, corrected together.

    `rows[method][test]` are that method's predictions, in the same order for every method.
    """
    found = []
    for a, b in pairs:
        for test in rows[a]:
            mine, theirs = rows[a][test], rows[b][test]
            if [r.id for r in mine] != [r.id for r in theirs]:
                raise ValueError(f"{a} and {b} were scored on different examples of {test}")
            gold = label_numbers([r.gold for r in mine])
            predicted_a = label_numbers([r.predicted for r in mine])
            predicted_b = label_numbers([r.predicted for r in theirs])
            sentences = [r.sentence_id for r in mine]
            for metric in METRICS:
                d, p = paired_difference(metric, gold, predicted_a, predicted_b, sentences, draws, rng)
                found.append(Comparison(a, b, test, metric, d.value, d.low, d.high, p, p, d.n))
    adjusted = corrected([c.p for c in found])
    return tuple(replace(c, p_corrected=p) for c, p in zip(found, adjusted, strict=True))
