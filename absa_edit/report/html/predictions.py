"""All test predictions as the page explores them: sentences once, probabilities in thousandths."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from absa_edit.records import Dataset, Example
from absa_edit.results import Prediction

Json = dict[str, Any]
Predictions = Mapping[str, Mapping[str, Sequence[Prediction]]]
"""By method, then by test set."""
LARGEST = 3_000_000
"""Bytes of the page that predictions may take."""


@dataclass(frozen=True, slots=True)
class Answered:
    """A test example with what each method said of it."""

    test: str
    example: Example
    given: tuple[Prediction, ...]
    """In the order of the methods."""


def answered(tests: Sequence[Dataset], predictions: Predictions) -> list[Answered]:
    """Every test example with its predictions; empty without methods."""
    if not predictions:
        return []
    by_id = {
        (method, test): {row.id: row for row in rows}
        for method, by_test in predictions.items()
        for test, rows in by_test.items()
    }
    return [
        Answered(test.name, example, tuple(by_id[method, test.name][example.id] for method in predictions))
        for test in tests
        for example in test.examples
    ]


def disagreement(rows: Sequence[Answered]) -> str:
    """How often the methods differ, and how often none is right, in a sentence."""
    answers = [(row.example.label, {one.predicted for one in row.given}) for row in rows]
    wrong = sum(gold not in given for gold, given in answers)
    methods = [one.method for one in rows[0].given]
    if len(methods) == 1:
        return f"`{methods[0]}` is wrong on {wrong:,} of {len(rows):,} test examples."
    differ = sum(len(given) > 1 for _, given in answers)
    return (
        f"The {len(methods)} methods disagree on {differ:,} of {len(rows):,} test examples; "
        f"all of them are wrong on {wrong:,}."
    )


def explorer(rows: Sequence[Answered], *, largest: int = LARGEST) -> Json:
    """The rows as the page embeds them; where they would take more than `largest` bytes, each `step`-th only."""
    step = 1
    while (size := len(json.dumps(shown := _embedded(rows[::step])))) > largest and step < len(rows):
        step = max(step + 1, math.floor(step * size / largest))
    return shown | {"step": step, "total": len(rows)}


def _embedded(rows: Sequence[Answered]) -> Json:
    tests = list(dict.fromkeys(row.test for row in rows))
    labels = list(rows[0].given[0].probabilities)
    sentences: dict[str, int] = {}
    return {
        "methods": [one.method for one in rows[0].given],
        "labels": labels,
        "tests": tests,
        # test, sentence, start and end of the aspect in characters, gold label
        "examples": [
            [
                tests.index(row.test),
                sentences.setdefault(row.example.text, len(sentences)),
                row.example.start,
                row.example.end,
                labels.index(row.example.label),
            ]
            for row in rows
        ],
        "sentences": list(sentences),
        "ids": [row.example.id for row in rows],
        "answers": [_answers([row.given[method] for row in rows], labels) for method in range(len(rows[0].given))],
    }


def _answers(given: Sequence[Prediction], labels: Sequence[str]) -> Json:
    """The predicted labels as a string of label numbers, and three probabilities a row in thousandths."""
    return {
        "labels": "".join(str(labels.index(one.predicted)) for one in given),
        "thousandths": [round(1000 * one.probabilities[label]) for one in given for label in labels],
    }
