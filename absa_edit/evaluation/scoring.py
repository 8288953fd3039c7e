"""Scores with intervals and paired comparisons, from predictions alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from absa_edit.evaluation.metric import LabelScore
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
    labels = labels_of(rows)
    gold, predicted = (label_numbers([getattr(r, which) for r in rows], labels) for which in ("gold", "predicted"))
    table = confusions(gold, predicted, len(labels))
    weights = bootstrap_weights([r.sentence_id for r in rows], draws, rng)
    resampled = np.tensordot(weights, table, 1)
    total = table.sum(0)
    # The shipped metric says the figures, so that anybody gets the same from it; resamples need the vectorised code.
    headline = LabelScore(labels, keep_in_memory=True).compute(predictions=predicted, references=gold)
    intervals = {
        name: percentile_interval(headline[name], metric(resampled), len(rows)) for name, metric in METRICS.items()
    }
    return Score(
        intervals["accuracy"],
        intervals["macro_f1"],
        {label: float(f) for label, f in zip(labels, class_f1(total), strict=True)},
        tuple(tuple(int(n) for n in row) for row in total),
    )


def labels_of(rows: Sequence[Prediction]) -> tuple[str, ...]:
    """The task's labels, which every prediction gives a probability to, in order."""
    return tuple(rows[0].probabilities)


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
    comparisons = []
    for a, b in pairs:
        for test in rows[a]:
            mine, theirs = rows[a][test], rows[b][test]
            if [r.id for r in mine] != [r.id for r in theirs]:
                raise ValueError(f"{a} and {b} were scored on different examples of {test}")
            labels = labels_of(mine)
            gold = label_numbers([r.gold for r in mine], labels)
            predicted_a = label_numbers([r.predicted for r in mine], labels)
            predicted_b = label_numbers([r.predicted for r in theirs], labels)
            sentences = [r.sentence_id for r in mine]
            for metric in METRICS:
                d, p = paired_difference(metric, gold, predicted_a, predicted_b, len(labels), sentences, draws, rng)
                comparisons.append(Comparison(a, b, test, metric, d.value, d.low, d.high, p, p, d.n))
    adjusted = corrected([c.p for c in comparisons])
    return tuple(replace(c, p_corrected=p) for c, p in zip(comparisons, adjusted, strict=True))
