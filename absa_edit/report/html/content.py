"""What the page shows: the few figures at its head, and sections that each have a sentence, data and tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from absa_edit.records import Dataset, TokenGrid, Trace
from absa_edit.report import formatting
from absa_edit.report.conclusions import against_baselines, budget, confused, findings, learned, main_test, peak
from absa_edit.report.html.predictions import Predictions, answered, disagreement, explorer
from absa_edit.report.html.scores import budget_points, confusion_tables, learning_curves, score_tables
from absa_edit.report.html.trace import average_maps, chosen, example_maps, token_maps
from absa_edit.report.results import (
    COMPARED,
    COST,
    DAMAGED,
    Table,
    class_table,
    comparison_table,
    cost_table,
    damage_table,
)
from absa_edit.report.tables import compared, interval_of
from absa_edit.results import RunRecord
from absa_edit.tracing.effects import Effects


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page; it is left out when it has neither data nor tables."""

    title: str
    said: str | None
    """Its finding, in a sentence."""
    data: Any
    """What its figure draws, as JSON values."""
    tables: tuple[tuple[str, str, Table], ...] = ()
    """Title, remark, and table."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A number that heads the page."""

    of: str
    value: str
    around: str
    """Its interval, or what else it needs."""


def sections(
    record: RunRecord,
    effects: Effects | None,
    heads: Effects | None,
    trace: Trace | None,
    grids: Sequence[TokenGrid],
    train: Dataset | None,
    tests: Sequence[Dataset],
    predictions: Predictions,
) -> dict[str, Section]:
    """The sections that the run has something for, by their place on the page."""
    test, rows = main_test(record), answered(tests, predictions)
    maps = average_maps(effects, heads, record.plan) if effects else []
    by_token = token_maps(grids, train) if train else []
    examples = example_maps(trace, train) if trace and train else []
    found = {
        "trace": Section("Where the model decides", peak(record), maps),
        "examples": Section(
            "Single examples", chosen(len(by_token), len(examples), trace) if trace else None, [*by_token, *examples]
        ),
        "scores": Section(
            "Scores",
            next(iter(against_baselines(record, test)), None),
            score_tables(record),
            (("F1 of each class", "", class_table(record)), ("Paired comparisons", COMPARED, comparison_table(record))),
        ),
        "budget": Section(
            "Score against budget",
            budget(record),
            budget_points(record),
            (("Cost", COST, cost_table(record)), ("Damage to the language model", DAMAGED, damage_table(record))),
        ),
        "learning": Section("Learning curves", learned(record), learning_curves(record)),
        "confusion": Section("Confusions", confused(record, test), confusion_tables(record)),
        "predictions": Section("Predictions", disagreement(rows) if rows else None, explorer(rows) if rows else None),
    }
    filled = {key: replace(one, tables=tuple(t for t in one.tables if t[2][1])) for key, one in found.items()}
    return {key: one for key, one in filled.items() if one.data or one.tables}


def headline(record: RunRecord) -> str | None:
    """The first of the run's findings; None when it has none."""
    return next(iter(findings(record)), None)


def figures(record: RunRecord) -> list[Figure]:
    """The figures of the edit on the main test set, and of the trace, as far as the run has them."""
    test, found = main_test(record), []
    score = interval_of(record, "edit", test, "macro_f1") if test and "edit" in record.methods else None
    if test and score:
        edit = record.methods["edit"]
        value, around = score.percent().split(" ", 1)
        found.append(Figure(f"macro-F1 of edit on {test}", value, f"{around}, n = {score.n:,}"))
        if c := compared(record, "edit", "random", test):
            around = f"{formatting.between(c.low, c.high)}, {formatting.p_value(c.p_corrected)} corrected"
            found.append(Figure("points over the same edit at random", formatting.points(c.difference), around))
        found.append(Figure("of the weights trained", formatting.percent(edit.share), f"{edit.trainable:,} parameters"))
    if record.trace:
        total = record.trace.total_effect
        value, around = total.percent().split(" ", 1)
        found.append(Figure("points of p(gold) that corruption takes", value, f"{around}, n = {total.n:,}"))
    return found
