"""Rows, their order, and what they are compared with."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import f1_score

from absa_edit.records import DataSummary
from absa_edit.report import lookup
from absa_edit.report.markdown import report_markdown
from absa_edit.results import RunRecord
from absa_edit.tasks.absc import Polarity


def test_own_test_set_and_untrained_model_come_first(record: RunRecord) -> None:
    assert lookup.tests_in_order(record) == ("laptop14", "restaurant14", "device")
    assert lookup.methods_in_order(record) == ("zero_shot", "edit", "random", "lora", "full")
    assert lookup.own_test(record) == "laptop14"


def test_without_its_own_test_set_a_run_has_none(make_record: Callable[..., RunRecord]) -> None:
    assert lookup.own_test(make_record(tests=1)) is None


def test_rows_carry_scores_and_cost(record: RunRecord) -> None:
    rows = lookup.score_rows(record)
    assert len(rows) == 15
    edit = next(row for row in rows if (row.method, row.test) == ("edit", "laptop14"))
    assert edit.is_own_test and edit.macro_f1.value == 0.655 and edit.seconds == 12.4 and edit.peak_mb == 812.0
    names, values = lookup.columns(row.flat() for row in rows)
    flat = dict(zip(names, values[rows.index(edit)], strict=True))
    assert flat["macro_f1_low"] == pytest.approx(0.621) and flat["n"] == 638 and flat["trainable"] == 34_560
    assert lookup.columns([]) == ([], [])


def test_majority_agrees_with_scikit_learn() -> None:
    data = DataSummary("x", "test", "xml", {}, 10, {"positive": 2, "negative": 5, "neutral": 3}, {})
    known = lookup.majority(data)
    gold = np.repeat([0, 1, 2], [2, 5, 3])
    expected = f1_score(gold, np.full(10, 1), labels=[0, 1, 2], average="macro", zero_division=0)
    assert known is not None and known.label == Polarity.negative
    assert (known.accuracy, known.macro_f1) == (0.5, pytest.approx(expected))


def test_an_empty_set_has_no_majority() -> None:
    assert lookup.majority(DataSummary("x", "test", "xml", {}, 0, {}, {})) is None


def test_best_names_every_winner(record: RunRecord) -> None:
    tied = replace(record, methods=record.methods | {"twin": record.methods["full"]})
    for run, names in ((record, ("full",)), (tied, ("full", "twin"))):
        (restaurants,) = (c for c in lookup.score_columns(run, "macro_f1") if c.test == "restaurant14")
        assert restaurants.best == names


def test_a_comparison_can_be_turned_round(record: RunRecord) -> None:
    found = lookup.compared(record, "edit", "lora", "laptop14")
    assert found is not None and (found.a, found.b) == ("edit", "lora")
    assert (found.difference, found.low, found.high) == pytest.approx((0.007, -0.013, 0.027))
    assert lookup.compared(record, "edit", "full", "laptop14") is None


def test_the_best_log_loss_is_the_lowest(record: RunRecord) -> None:
    for column in lookup.score_columns(record, "log_loss"):
        assert column.best == (min(column.scores, key=lambda name: column.scores[name].value),)


def test_records_from_before_log_loss_are_shown_without_it(record: RunRecord) -> None:
    methods = {
        name: replace(m, scores={test: replace(s, log_loss=None) for test, s in m.scores.items()})
        for name, m in record.methods.items()
    }
    before = replace(record, methods=methods, pooled=())
    assert lookup.metrics_of(record) == ("accuracy", "macro_f1", "log_loss")
    assert lookup.metrics_of(before) == ("accuracy", "macro_f1")
    assert lookup.score_rows(before)[0].flat()["log_loss"] is None
    text = report_markdown(before)
    assert "**macro-F1**" in text and "**log-loss**" not in text


def test_test_sets_are_asked_about_by_their_standing(record: RunRecord) -> None:
    assert lookup.questions(record) == {
        "own test": ("laptop14",),
        "out of domain": ("restaurant14",),
        "other set": ("device",),
    }


NAMES = {"edit": "ours", "random": "elsewhere", "zero_shot": "before", "lora": "wide", "full": "everything"}


def renamed(record: RunRecord) -> RunRecord:
    """The same run with other names of its methods."""
    comparisons = tuple(replace(c, a=NAMES[c.a], b=NAMES[c.b]) for c in record.comparisons)
    pooled = tuple(replace(p, a=NAMES[p.a], b=NAMES[p.b]) for p in record.pooled)
    methods = {NAMES[name]: replace(method, kind="some") for name, method in record.methods.items()}
    return replace(record, methods=methods, comparisons=comparisons, pooled=pooled, export=None)


def test_roles_come_from_the_record_not_from_names(record: RunRecord) -> None:
    run = renamed(record)
    roles = lookup.focus(run), lookup.random_control(run), lookup.baseline(run), lookup.whole_model(run)
    assert roles == ("ours", "elsewhere", "before", ("wide", "everything"))
    turned = replace(run, comparisons=(replace(run.comparisons[0], a="wide", b="ours"),))
    assert lookup.focus(turned) == "wide" and lookup.whole_model(turned) == ("everything",)
    assert lookup.focus(replace(run, comparisons=())) == "ours"
    untrained = replace(run, comparisons=(), methods={"before": run.methods["before"]})
    assert lookup.focus(untrained) == "before" and lookup.random_control(untrained) is None
    assert lookup.focus(replace(untrained, methods={})) is None


def test_other_names_give_the_same_report(record: RunRecord) -> None:
    methods = {name: replace(method, kind="some") for name, method in record.methods.items()}
    expected = report_markdown(replace(record, methods=methods, export=None))
    for name, other in NAMES.items():
        expected = re.sub(rf"(`|\| ){name}(`| \|)", rf"\g<1>{other}\g<2>", expected)
        expected = re.sub(rf"(\| ){name} \|", rf"\g<1>{other} |", expected)
    assert report_markdown(renamed(record)) == expected


def test_examples_are_called_by_the_task(record: RunRecord) -> None:
    units = [lookup.unit(replace(record, task=task)) for task in ("absc", "emotions", "of my own")]
    assert units == ["aspects", "sentences", "examples"]
