"""Scores, budgets, learning curves and confusion matrices as the page draws them."""

from __future__ import annotations

from typing import Any

from absa_edit.report.formatting import percent
from absa_edit.report.plots.style import looks
from absa_edit.report.tables import (
    METRICS,
    Metric,
    best,
    interval_of,
    majority_of,
    methods_in_order,
    score_rows,
    standing,
    tests_in_order,
)
from absa_edit.results import Interval, RunRecord, Score

Json = dict[str, Any]
SYMBOLS = {
    "x": "times", "o": "circle", "s": "square", "v": "hexagon", "D": "diamond", "^": "triangle", "P": "cross",
    "X": "wye", "<": "star", ">": "plus",
}  # fmt: skip
"""The figures' markers as Observable Plot calls them, or the nearest it has."""


def method_looks(record: RunRecord) -> list[Json]:
    """Name, share of the weights, colour and symbol of each method, in order."""
    chosen = looks(record)
    return [
        {
            "name": name,
            "share": percent(record.methods[name].share),
            "colour": chosen[name].colour,
            "symbol": SYMBOLS[chosen[name].marker],
        }
        for name in methods_in_order(record)
    ]


def score_tables(record: RunRecord) -> list[Json]:
    """One table a metric, macro-F1 first: a row a method, an interval a test set, and the majority class beside."""
    if not tests_in_order(record):
        return []
    return [_score_table(record, metric) for metric in sorted(METRICS, reverse=True)]


def _score_table(record: RunRecord, metric: Metric) -> Json:
    tests, methods = tests_in_order(record), methods_in_order(record)
    grid = {(m, t): i for m in methods for t in tests if (i := interval_of(record, m, t, metric)) is not None}
    low, high = min(i.low for i in grid.values()), max(i.high for i in grid.values())

    def cell(method: str, test: str) -> Json | None:
        found = grid.get((method, test))
        if found is None:
            return None
        text, interval = found.percent().split(" ", 1)
        along = [round(100 * (end - low) / max(high - low, 1e-9), 1) for end in (found.low, found.value, found.high)]
        first = method in best(record, test, metric)
        return {"value": found.value, "text": text, "interval": interval, "along": along, "best": first}

    return {
        "name": METRICS[metric],
        "heads": [
            {
                "name": test,
                "where": standing(record, test),
                "n": next(i.n for (_, t), i in grid.items() if t == test),
            }
            for test in tests
        ],
        "rows": [
            {"method": i, "trainable": record.methods[m].trainable, "cells": [cell(m, test) for test in tests]}
            for i, m in enumerate(methods)
        ],
        "majority": [_always(record, test, metric) for test in tests],
    }


def _always(record: RunRecord, test: str, metric: Metric) -> Json | None:
    """What the majority class scores on a test set; None when the run does not describe the set."""
    found = majority_of(record, test)
    if found is None:
        return None
    share = found.accuracy if metric == "accuracy" else found.macro_f1
    return {"text": f"{100 * share:.1f}", "label": found.label}


def budget_points(record: RunRecord) -> list[Json]:
    """What the Pareto plot needs: a point a method and test set, scores in percent; empty when nothing was trained."""
    if not any(method.trainable for method in record.methods.values()):
        return []
    return [
        {
            "method": row.method,
            "test": row.test,
            "trainable": row.trainable,
            "seconds": None if row.seconds is None else round(row.seconds, 1),
            "accuracy": _interval(row.accuracy),
            "macro_f1": _interval(row.macro_f1),
        }
        for row in score_rows(record)
    ]


def learning_curves(record: RunRecord) -> list[Json]:
    """A point a method and epoch: loss, and the development scores in percent."""
    return [
        {
            "method": name,
            "epoch": int(row["epoch"]),
            "loss": round(row["loss"], 4),
            "accuracy": round(100 * row["dev_accuracy"], 1),
            "macro_f1": round(100 * row["dev_macro_f1"], 1),
            "kept": row["epoch"] == fit.best_epoch,
        }
        for name in methods_in_order(record)
        if (fit := record.methods[name].fit) is not None
        for row in fit.history
    ]


def confusion_tables(record: RunRecord) -> list[Json]:
    """By test set, a matrix a method: counts, and their share of the gold label's row in percent."""
    return [
        {
            "test": test,
            "methods": [
                {"name": name, "rows": _matrix(name, record.methods[name].scores[test])}
                for name in methods_in_order(record)
                if test in record.methods[name].scores
            ],
        }
        for test in tests_in_order(record)
    ]


def _matrix(method: str, score: Score) -> list[Json]:
    rows, labels = [], list(score.f1)
    for gold, counts in zip(labels, score.confusion, strict=True):
        cells = []
        for given, count in zip(labels, counts, strict=True):
            share = round(100 * count / max(sum(counts), 1), 1)
            tip = f"{method}: {gold} called {given}\n{count:,} aspects, {share} % of the {gold} ones"
            cells.append({"count": f"{count:,}", "share": share, "tip": tip})
        rows.append({"gold": gold, "cells": cells})
    return rows


def _interval(of: Interval) -> Json:
    plain = {key: round(100 * getattr(of, key), 1) for key in ("value", "low", "high")}
    return plain | {"n": of.n}
