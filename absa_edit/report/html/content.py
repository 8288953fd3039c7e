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
from absa_edit.report.lookup import compared, focus, interval_of, random_control, trains_nothing
from absa_edit.report.tables import (
    calibration_table,
    class_table,
    comparison_table,
    cost_table,
    damage_table,
    leak_free_table,
    pooled_table,
    retention_table,
    sampled_table,
    traces_table,
)
from absa_edit.results import RunRecord
from absa_edit.table import Table
from absa_edit.tracing.effects import Effects


@dataclass(frozen=True, slots=True)
class PageSection:
    """A part of the page."""

    title: str
    sentence: str | None
    """Its finding."""
    data: Any = None
    """What its figure draws, as JSON values."""
    tables: tuple[tuple[str, Table], ...] = ()
    """Those that open at a click, with their titles."""


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
) -> dict[str, PageSection]:
    """The sections that the run has something for, by their place on the page."""
    test, rows = main_test(record), answered(tests, predictions)
    maps = average_maps(effects, heads, record.plan) if effects else []
    by_token = token_maps(grids, train) if train else []
    examples = example_maps(trace, train) if trace and train else []
    possible = {
        "trace": PageSection("Where the model decides", peak(record), maps, _beside(record)),
        "examples": PageSection(
            "Single examples", chosen(len(by_token), len(examples), trace) if trace else None, [*by_token, *examples]
        ),
        "scores": PageSection(
            "Scores",
            next(iter(against_baselines(record, test)), None),
            score_tables(record),
            (
                ("Without leaked test rows", leak_free_table(record)),
                ("Answers that are drawn", sampled_table(record)),
                ("F1 of each class", class_table(record)),
                ("Calibration", calibration_table(record)),
                ("Paired comparisons over several test sets", pooled_table(record)),
                ("Paired comparisons", comparison_table(record)),
            ),
        ),
        "budget": PageSection(
            "Score against budget",
            budget(record),
            budget_points(record),
            (
                ("Cost", cost_table(record)),
                ("Damage to the language model", damage_table(record)),
                ("What the model does besides the task", retention_table(record)),
            ),
        ),
        "learning": PageSection("Learning curves", learned(record), learning_curves(record)),
        "confusion": PageSection("Confusions", confused(record, test), confusion_tables(record)),
        "predictions": PageSection(
            "Predictions", disagreement(rows) if rows else None, explorer(rows) if rows else None
        ),
    }
    filled = {
        key: replace(section, tables=tuple((title, table) for title, table in section.tables if table.rows))
        for key, section in possible.items()
    }
    analyses = {
        f"analysis-{name}": PageSection(analysis.section.title, analysis.section.sentence)
        for name, analysis in record.analyses.items()
    }
    return {key: section for key, section in filled.items() if section.data or section.tables} | analyses


def _beside(record: RunRecord) -> tuple[tuple[str, Table], ...]:
    table = traces_table(record)
    return (("Traces of the base, adapted and edited model", table),) if table else ()


def headline(record: RunRecord) -> str | None:
    """The first of the run's findings; None when it has none."""
    return next(iter(findings(record)), None)


def figures(record: RunRecord) -> list[Figure]:
    """The figures of the run's method on the main test set, and of the trace, as far as the run has them."""
    test, name, shown = main_test(record), focus(record), []
    score = interval_of(record, name, test, "macro_f1") if test and name else None
    if test and name and score:
        method, other = record.methods[name], random_control(record)
        value, around = score.percent().split(" ", 1)
        shown.append(Figure(f"macro-F1 of {name} on {test}", value, f"{around}, n = {score.n:,}"))
        if other and (c := compared(record, name, other, test)):
            around = f"{formatting.between(c.low, c.high)}, {formatting.p_value(c.p_corrected)} corrected"
            shown.append(Figure("points over random placement", formatting.points(c.difference), around))
        if not trains_nothing(method):
            share, trainable = formatting.percent(method.share), f"{method.trainable:,} parameters"
            shown.append(Figure("of the weights trained", share, trainable))
    if record.trace:
        total = record.trace.total_effect
        value, around = total.percent().split(" ", 1)
        shown.append(Figure("points of p(gold) that corruption takes", value, f"{around}, n = {total.n:,}"))
    return shown
