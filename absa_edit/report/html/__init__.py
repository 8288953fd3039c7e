"""`report.html`: the run as one page that opens from disk and fetches nothing.

trace.py, scores.py, predictions.py    what the page shows, as JSON values
page/page.html                         the template; tables and sentences are in it without any script
page/*.css, page/*.js                  its look, its maps, charts and filters
page/vendor/                           drawing libraries, unchanged, with their licences
"""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from absa_edit.records import Dataset, RunRecord, Trace
from absa_edit.report import describe, words
from absa_edit.report.findings import (
    against_baselines,
    budget,
    caveats,
    confused,
    findings,
    learned,
    main_test,
    peak,
    sample_warning,
)
from absa_edit.report.html import predictions as explored
from absa_edit.report.html import scores
from absa_edit.report.html.predictions import Predictions
from absa_edit.report.html.trace import average_maps, chosen, example_maps
from absa_edit.report.results import (
    COMPARED,
    DAMAGED,
    class_table,
    comparison_table,
    cost_table,
    damage_table,
    data_table,
)
from absa_edit.report.tables import compared, interval_of
from absa_edit.trace.effects import Effects

PAGE = Path(__file__).parent / "page"
SCRIPTS = ("controls.js", "heatmap.js", "charts.js", "explorer.js", "page.js")
LIBRARIES = ("vendor/d3.min.js", "vendor/plot.umd.min.js")
SECTIONS = {
    "trace": "Where the model decides",
    "examples": "Single examples",
    "scores": "Scores",
    "budget": "Score against budget",
    "learning": "Learning curves",
    "confusion": "Confusions",
    "predictions": "Predictions",
}
"""Titles of the sections that are there when the run has something for them."""


def report_html(
    record: RunRecord,
    *,
    effects: Effects | None = None,
    heads: Effects | None = None,
    trace: Trace | None = None,
    train: Dataset | None = None,
    tests: tuple[Dataset, ...] = (),
    predictions: Predictions | None = None,
    command: str | None = None,
) -> str:
    """The text of `report.html`; the same records give the same bytes.

    Sections that the run has no numbers for are left out. `train` holds the traced examples' sentences,
    `tests` those of `predictions`; `heads` are the effects of single heads.
    """
    rows = explored.answered(tests, predictions or {})
    data: dict[str, Any] = {
        "trace": average_maps(effects, heads, record.plan) if effects else [],
        "examples": example_maps(trace, train) if trace and train else [],
        "scores": scores.score_tables(record),
        "budget": scores.budget_points(record),
        "learning": scores.learning_curves(record),
        "confusion": scores.confusion_tables(record),
        "predictions": explored.explorer(rows) if rows else None,
    }
    test = main_test(record)
    said = {
        "trace": peak(record),
        "examples": chosen(len(data["examples"]), len(trace.example_ids)) if trace else None,
        "scores": next(iter(against_baselines(record, test)), None),
        "budget": budget(record),
        "learning": learned(record),
        "confusion": confused(record, test),
        "predictions": explored.disagreement(rows) if rows else None,
    }
    present = {key: title for key, title in SECTIONS.items() if data[key]}
    drawn = {key: value for key, value in data.items() if value and key not in ("scores", "confusion")}
    charts = bool(data["budget"] or data["learning"])
    methods = scores.method_looks(record)
    code = ["\n".join(_read(name) for name in SCRIPTS)]
    libraries = [_read(name) for name in LIBRARIES] if charts else []
    tables = [
        ("F1 of each class", "", class_table(record)),
        ("Paired comparisons", COMPARED, comparison_table(record)),
        ("Cost", "", cost_table(record)),
        ("Damage to the language model", DAMAGED, damage_table(record)),
    ]
    return _environment().get_template("page.html").render(
        record=record,
        describe=describe,
        warning=sample_warning(record),
        headline=next(iter(findings(record)), None),
        caveats=caveats(record),
        figures=_figures(record, test),
        said=said,
        sections=present,
        data=data,
        methods=methods,
        tables=[table for table in tables if table[2][1]],
        data_table=data_table(record),
        command=command,
        payload={"methods": methods, **drawn},
        style=Markup(_read("page.css")),
        libraries=[Markup(text) for text in libraries],
        licences=Markup(_read("vendor/LICENSES.txt")),
        scripts=[Markup(text) for text in code],
        allowed=" ".join(_digest(text) for text in libraries + code),
    )  # fmt: skip


def _figures(record: RunRecord, test: str | None) -> list[dict[str, str]]:
    """The few numbers that head the page: a value, what it is, and its interval."""
    found = []
    if test and "edit" in record.methods and (score := interval_of(record, "edit", test, "macro_f1")):
        value, around = score.percent().split(" ", 1)
        found.append({"value": value, "of": f"macro-F1 of edit on {test}", "around": f"{around}, n = {score.n:,}"})
        if control := compared(record, "edit", "random", test):
            around = f"{words.between(control.low, control.high)}, {words.p_value(control.p_corrected)} corrected"
            value = words.points(control.difference)
            found.append({"value": value, "of": "points over the same edit at random", "around": around})
        edit = record.methods["edit"]
        found.append(
            {"value": words.percent(edit.share), "of": "of the weights trained", "around": f"{edit.trainable:,}"}
        )
    if record.trace:
        total = record.trace.total_effect
        value, around = total.percent().split(" ", 1)
        found.append(
            {"value": value, "of": "points of p(gold) that corruption takes", "around": f"{around}, n = {total.n:,}"}
        )
    return found


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(PAGE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    environment.filters["prose"] = prose
    return environment


def prose(text: str) -> Markup:
    """A sentence with `code` and **bold** as HTML, everything else escaped; figures stay with their sign."""
    whole = str(escape(text)).replace(" = ", "&nbsp;=&nbsp;").replace(" %", "&nbsp;%")
    marked = re.sub(r"`([^`]+)`", r"<code>\1</code>", whole)
    return Markup(re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", marked))


def _read(name: str) -> str:
    return (PAGE / name).read_text(encoding="utf-8")


def _digest(script: str) -> str:
    """The content-security policy's word for exactly this script."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
