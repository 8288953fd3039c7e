"""Scores, budgets, learning curves and confusion matrices as the page draws them."""

from __future__ import annotations

from typing import Any

from absa_edit.report import formatting
from absa_edit.report.lookup import (
    METRICS,
    Metric,
    ScoreColumn,
    methods_in_order,
    metrics_of,
    score_columns,
    score_rows,
    tests_in_order,
    unit,
)
from absa_edit.report.plots.style import looks
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
            "share": formatting.percent(record.methods[name].share),
            "colour": chosen[name].colour,
            "symbol": SYMBOLS[chosen[name].marker],
        }
        for name in methods_in_order(record)
    ]


def score_tables(record: RunRecord) -> list[Json]:
    """One table a metric, macro-F1 first: a row a method, an interval a test set, and the majority class beside."""
    if not tests_in_order(record):
        return []
    return [_score_table(record, m) for m in sorted(metrics_of(record), key=lambda metric: metric != "macro_f1")]


def _score_table(record: RunRecord, metric: Metric) -> Json:
    columns = score_columns(record, metric)
    intervals = [interval for column in columns for interval in column.scores.values()]
    low, high = min(i.low for i in intervals), max(i.high for i in intervals)

    def cell(column: ScoreColumn, method: str) -> Json | None:
        score = column.scores.get(method)
        if score is None:
            return None
        text, interval = formatting.score(metric, score).split(" ", 1)
        along = [round(100 * (end - low) / max(high - low, 1e-9), 1) for end in (score.low, score.value, score.high)]
        best = method in column.best
        return {"value": score.value, "text": text, "interval": interval, "along": along, "best": best}

    return {
        "name": METRICS[metric],
        "heads": [{"name": c.test, "where": c.standing, "n": c.n} for c in columns],
        "rows": [
            {"method": i, "trainable": record.methods[name].trainable, "cells": [cell(c, name) for c in columns]}
            for i, name in enumerate(methods_in_order(record))
        ],
        "majority": [_majority(c) for c in columns],
    }


def _majority(column: ScoreColumn) -> Json | None:
    if column.majority is None:
        return None
    label, value = column.majority
    return {"text": formatting.value(column.metric, value), "label": label}


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
    """A point a method and epoch: loss, and the development scores, shares in percent."""
    return [
        {
            "method": name,
            "epoch": int(row["epoch"]),
            "loss": round(row["loss"], 4),
            "accuracy": round(100 * row["dev_accuracy"], 1),
            "macro_f1": round(100 * row["dev_macro_f1"], 1),
            **({"log_loss": round(row["dev_log_loss"], 4)} if "dev_log_loss" in row else {}),
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
                {"name": name, "rows": _matrix(name, record.methods[name].scores[test], unit(record))}
                for name in methods_in_order(record)
                if test in record.methods[name].scores
            ],
        }
        for test in tests_in_order(record)
    ]


def _matrix(method: str, score: Score, examples: str) -> list[Json]:
    rows, labels = [], list(score.f1)
    for gold, counts in zip(labels, score.confusion, strict=True):
        cells = []
        for given, count in zip(labels, counts, strict=True):
            share = round(100 * count / max(sum(counts), 1), 1)
            tip = f"{method}: {gold} called {given}\n{count:,} {examples}, {share} % of the {gold} ones"
            cells.append({"count": f"{count:,}", "share": share, "tip": tip})
        rows.append({"gold": gold, "cells": cells})
    return rows


def _interval(of: Interval) -> Json:
    plain = {key: round(100 * getattr(of, key), 1) for key in ("value", "low", "high")}
    return plain | {"n": of.n}
