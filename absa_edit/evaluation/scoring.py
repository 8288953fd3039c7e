"""Scores with intervals and paired comparisons, from predictions alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float, Int

from absa_edit.evaluation.metric import LabelScore
from absa_edit.resampling import (
    METRICS,
    Answers,
    bootstrap_weights,
    class_f1,
    confusions,
    corrected_by_family,
    generators,
    label_numbers,
    metric_interval,
    paired_difference,
)
from absa_edit.results import Comparison, Prediction, Score

Questions = Mapping[str, Sequence[str]]
"""Names of test sets that are asked about together, by what they have in common."""


def score(rows: Sequence[Prediction], *, draws: int, rng: np.random.Generator) -> Score:
    """Accuracy, macro-F1 and log-loss with 95 % sentence-bootstrap intervals, F1 per class, confusion."""
    labels, answers = labels_of(rows), answers_of(rows)
    total = confusions(answers.gold, answers.predicted, len(labels)).sum(0)
    weights = bootstrap_weights([r.sentence_id for r in rows], draws, rng)
    intervals = {name: metric_interval(metric, answers, weights) for name, metric in METRICS.items()}
    # The shipped metric says the figures, so that anybody gets the same from it; resamples need the vectorised code.
    headline = LabelScore(labels, keep_in_memory=True).compute(predictions=answers.predicted, references=answers.gold)
    intervals |= {name: replace(intervals[name], value=value) for name, value in headline.items()}
    return Score(
        intervals["accuracy"],
        intervals["macro_f1"],
        {label: float(f) for label, f in zip(labels, class_f1(total), strict=True)},
        tuple(tuple(int(n) for n in row) for row in total),
        intervals["log_loss"],
    )


def development_scores(
    log_probabilities: Float[np.ndarray, "example label"], gold: Int[np.ndarray, " example"]
) -> dict[str, float]:
    """`dev_accuracy`, `dev_macro_f1` and `dev_log_loss` of label log-probabilities, normalised over the labels."""
    answers = Answers(gold, log_probabilities.argmax(1), np.exp(log_probabilities))
    return {f"dev_{name}": float(metric.value(metric.statistics(answers).sum(0))) for name, metric in METRICS.items()}


def labels_of(rows: Sequence[Prediction]) -> tuple[str, ...]:
    """The task's labels, which every prediction gives a probability to, in order."""
    return tuple(rows[0].probabilities)


def answers_of(rows: Sequence[Prediction]) -> Answers:
    """The predictions as arrays."""
    labels = labels_of(rows)
    gold, predicted = (label_numbers([getattr(r, which) for r in rows], labels) for which in ("gold", "predicted"))
    probabilities = np.array([list(r.probabilities.values()) for r in rows])
    return Answers(gold, predicted, probabilities)


def compare(
    pairs: Iterable[tuple[str, str]],
    rows: Mapping[str, Mapping[str, Sequence[Prediction]]],
    questions: Questions,
    *,
    draws: int,
    rng: np.random.Generator,
) -> tuple[Comparison, ...]:
    """Paired differences of each pair of methods on each test set and metric.

    `rows[method][test]` are that method's predictions, in the same order for every method. Those in one metric on the
    test sets of one question are corrected together.
    """
    comparisons, use = [], generators(rng)
    for a, b in pairs:
        for test in rows[a]:
            mine, theirs = rows[a][test], rows[b][test]
            if [r.id for r in mine] != [r.id for r in theirs]:
                raise ValueError(f"{a} and {b} were scored on different examples of {test}")
            both, sentences = (answers_of(mine), answers_of(theirs)), [r.sentence_id for r in mine]
            for metric in METRICS:
                d, p = paired_difference(metric, *both, sentences, draws, use[metric])
                comparisons.append(Comparison(a, b, test, metric, d.value, d.low, d.high, p, p, d.n))
    families = [(c.metric, question_of(c.test, questions)) for c in comparisons]
    adjusted = corrected_by_family([c.p for c in comparisons], families)
    return tuple(replace(c, p_corrected=p) for c, p in zip(comparisons, adjusted, strict=True))


def question_of(test: str, questions: Questions) -> str | None:
    """The question that a test set belongs to; None where no question has it."""
    return next((question for question, tests in questions.items() if test in tests), None)
