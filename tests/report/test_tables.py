"""Rows, their order, and what they are compared with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import f1_score

from absa_edit.records import DataSummary
from absa_edit.report import tables
from absa_edit.results import RunRecord
from absa_edit.tasks.absc import Polarity


def test_own_test_set_and_untrained_model_come_first(record: RunRecord) -> None:
    assert tables.tests_in_order(record) == ("laptop14", "restaurant14", "device")
    assert tables.methods_in_order(record) == ("zero_shot", "edit", "random", "lora", "full")
    assert tables.own_test(record) == "laptop14"


def test_without_its_own_test_set_a_run_has_none(make_record: Callable[..., RunRecord]) -> None:
    assert tables.own_test(make_record(tests=1)) is None


def test_rows_carry_scores_and_cost(record: RunRecord) -> None:
    rows = tables.score_rows(record)
    assert len(rows) == 15
    edit = next(row for row in rows if (row.method, row.test) == ("edit", "laptop14"))
    assert edit.own and edit.macro_f1.value == 0.655 and edit.seconds == 12.4 and edit.peak_mb == 812.0
    names, values = tables.columns(row.flat() for row in rows)
    flat = dict(zip(names, values[rows.index(edit)], strict=True))
    assert flat["macro_f1_low"] == pytest.approx(0.621) and flat["n"] == 638 and flat["trainable"] == 34_560
    assert tables.columns([]) == ([], [])


def test_majority_agrees_with_scikit_learn() -> None:
    data = DataSummary("x", "test", "xml", {}, 10, {"positive": 2, "negative": 5, "neutral": 3}, {})
    known = tables.majority(data)
    gold = np.repeat([0, 1, 2], [2, 5, 3])
    expected = f1_score(gold, np.full(10, 1), labels=[0, 1, 2], average="macro", zero_division=0)
    assert known is not None and known.label == Polarity.negative
    assert (known.accuracy, known.macro_f1) == (0.5, pytest.approx(expected))


def test_an_empty_set_has_no_majority() -> None:
    assert tables.majority(DataSummary("x", "test", "xml", {}, 0, {}, {})) is None


def test_best_names_every_winner(record: RunRecord) -> None:
    assert tables.best(record, "restaurant14", "macro_f1") == ("full",)
    tied = replace(record, methods=record.methods | {"twin": record.methods["full"]})
    assert tables.best(tied, "restaurant14", "macro_f1") == ("full", "twin")


def test_a_comparison_can_be_turned_round(record: RunRecord) -> None:
    found = tables.compared(record, "edit", "lora", "laptop14")
    assert found is not None and (found.a, found.b) == ("edit", "lora")
    assert (found.difference, found.low, found.high) == pytest.approx((0.007, -0.013, 0.027))
    assert tables.compared(record, "edit", "full", "laptop14") is None
