"""`report.html` holds what the records hold, embeds it safely, and leaves out what a run has not."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from absa_edit.records import Dataset, Part, Role, Site, Target, TokenGrid, Trace
from absa_edit.report.html import PAGE, prose, report_html
from absa_edit.report.html.predictions import answered, disagreement, explorer
from absa_edit.report.html.scores import budget_points, confusion_tables, score_tables
from absa_edit.report.html.trace import average_maps, example_maps, points
from absa_edit.results import Prediction, RunRecord
from absa_edit.tracing.effects import Effects


def payload(html: str) -> dict[str, Any]:
    """The JSON that the page embeds."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    assert found
    return json.loads(found[1])


@pytest.fixture
def html(page_inputs: dict[str, Any]) -> str:
    return report_html(**page_inputs)


def test_every_section_is_there_with_its_sentence(html: str) -> None:
    assert re.findall(r'<section id="(\w+)">', html) == [
        "trace", "examples", "scores", "budget", "learning", "confusion", "predictions", "run",
    ]  # fmt: skip
    for sentence in (
        "Tracing did not beat random placement on laptop14",
        "<code>edit</code> trains 0.20&nbsp;% of the weights",
        "24.7 [19.7, 29.9] of the 41.3 points",
        "21 times fewer than <code>lora</code> and 506 times fewer than <code>full</code>",
        "development set (n&nbsp;=&nbsp;240): <code>full</code> reaches",
        "On laptop14, <code>edit</code> errs most by calling neutral ones positive: 40 of 169.",
        "The 5 methods disagree on 4 of 6 test examples; all of them are wrong on 0.",
        "one seed and one random placement",
        "python train.py +experiment=laptop14",
    ):
        assert sentence in html, sentence


def test_examples_traced_by_token_come_first(page_inputs: dict[str, Any], trace: Trace, train: Dataset) -> None:
    restored = np.full((1, 4, 3), 0.25)
    restored[0, 2:] += np.arange(6).reshape(2, 3) / 10  # before the third token, nothing was corrupted
    roles = (Role.instruction, Role.before, Role.aspect, Role.after)
    grid = TokenGrid(train.examples[0].id, ("Given", "The", "screen", "is"), roles, (Part.block,), 0.9, 0.25, restored)
    found = payload(report_html(**page_inputs | {"grids": [grid]}))["examples"]
    assert len(found) == 1 + len(example_maps(trace, train))
    (view,) = found[0]["maps"][0]["views"]
    assert [row["name"] for row in view["rows"]] == ["screen", "is"]
    assert view["effect"] == [[0.0, 10.0, 20.0], [30.0, 40.0, 50.0]]
    assert (found[0]["text"], found[0]["clean"]) == (train.examples[0].text, 90.0)


def test_the_same_records_give_the_same_bytes(page_inputs: dict[str, Any], html: str) -> None:
    assert report_html(**page_inputs) == html


def test_nothing_is_fetched(html: str) -> None:
    own = re.sub(r"<script>.*?</script>", "", html, flags=re.DOTALL)  # the libraries hold addresses as text
    assert not re.findall(r'\b(?:src|href)="(?!#)', own) and "@import" not in own and "url(" not in own
    assert "default-src 'none'" in html


def test_text_from_data_stays_text(page_inputs: dict[str, Any], record: RunRecord) -> None:
    hostile = page_inputs["tests"][0].examples[1].text
    html = report_html(**page_inputs | {"record": replace(record, experiment=hostile)})
    assert "<script>document" not in html and "<b>fan" not in html
    assert hostile in payload(html)["predictions"]["sentences"]


def test_what_a_run_has_not_is_left_out(record: RunRecord, make_effects: Callable[..., Effects]) -> None:
    bare = replace(record, methods={}, before=None, comparisons=(), pooled=(), export=None, plan=None)
    html = report_html(bare, effects=make_effects())
    assert re.findall(r'<section id="(\w+)">', html) == ["trace", "run"]
    assert len(html) < 100_000, "drawing libraries without a chart"
    html = report_html(replace(record, trace=None, plan=None))
    assert re.findall(r'<section id="(\w+)">', html) == ["scores", "budget", "learning", "confusion", "run"]
    untrained = replace(
        record, methods={"zero_shot": record.methods["zero_shot"]}, comparisons=(), pooled=(), trace=None
    )
    html = report_html(untrained)
    assert "Cost</summary>" in html and 'data-figure="budget"' not in html and "Learning" not in html


def test_libraries_are_the_published_files() -> None:
    said = (PAGE / "vendor" / "LICENSES.txt").read_text(encoding="utf-8")
    for name in ("d3.min.js", "plot.umd.min.js"):
        content = (PAGE / "vendor" / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() in said
        assert b"</script" not in content and b"<!--" not in content


def test_prose_marks_code_and_bold_and_escapes_the_rest() -> None:
    assert prose("`a<b` is **5 %** <i>, n = 3") == (
        "<code>a&lt;b</code> is <strong>5&nbsp;%</strong> &lt;i&gt;, n&nbsp;=&nbsp;3"
    )


def test_maps_hold_the_effects_in_points(record: RunRecord, make_effects: Callable[..., Effects]) -> None:
    effects = make_effects()
    block, attn, mlp = average_maps(effects, None, record.plan)
    (view,) = attn["views"]
    assert view["effect"][1][5] == round(100 * float(effects.aie[1, 1, 5]), 1)
    assert view["low"][1][5] < view["effect"][1][5] < view["high"][1][5]
    assert view["rows"][0] == {"name": "before aspect", "n": 74}
    assert attn["planned"] == mlp["planned"] == [(-1, 4), (-1, 5), (-1, 6), (-1, 7)] and not block["planned"]
    assert block["layers"] == [4, 5, 6, 7]
    assert block["largest"] == mlp["largest"] == round(100 * float(np.abs(effects.aie).max()), 1)


def test_a_cell_is_unsure_by_its_interval_not_by_what_is_printed(record: RunRecord, make_effects) -> None:
    effects = make_effects()
    low, high = np.full_like(effects.aie, 0.0003), np.full_like(effects.aie, 0.004)
    low[0, 0, 1] = -0.0003
    (view,) = average_maps(replace(effects, low=low, high=high), None, record.plan)[0]["views"]
    assert view["low"][0][:2] == [0.0, 0.0] and view["unsure"][0][:2] == [False, True]


def test_heads_have_a_view_a_role_strongest_first(record: RunRecord, make_effects: Callable[..., Effects]) -> None:
    cells = np.zeros((3, 2, 4))  # head role layer
    cells[2, 1, 3] = 0.2
    total, n = make_effects().total, np.array([7, 9])
    heads = Effects((Part.head,) * 3, (Role.aspect, Role.last), cells, cells - 0.1, cells + 0.1, n, total)
    assert record.plan is not None
    plan = replace(record.plan, targets=(Target(Site(3, Part.head, 2), 4),))
    last = average_maps(make_effects(), heads, plan)[-1]
    assert [view["name"] for view in last["views"]] == ["last token", "aspect"]
    assert last["views"][0]["effect"][2] == [0.0, 0.0, 0.0, 20.0]
    assert last["views"][0]["rows"] == [{"name": f"head {i}", "n": 9} for i in range(3)]
    assert last["planned"] == [(2, 3)] and last["largest"] == 20.0


def test_single_examples_are_spread_over_the_total_effect(trace: Trace, train: Dataset) -> None:
    maps = example_maps(trace, train)
    assert [one["text"] for one in maps] == [train.examples[1].text, train.examples[0].text]  # 0.6, then 0.675
    assert maps[0]["clean"] == 80.0 and maps[0]["corrupted"] == 20.0
    assert maps[0]["maps"][0]["views"][0]["effect"] == [[20.0, 20.0], [20.0, 20.0]]
    lacking = trace.restored.copy()
    lacking[1, :, 0] = np.nan
    (view,) = example_maps(replace(trace, restored=lacking), train)[0]["maps"][0]["views"]
    assert [row["name"] for row in view["rows"]] == ["last token"]


def test_points_have_one_decimal_and_no_negative_zero() -> None:
    assert json.dumps(points(np.array([[0.1234, -0.0001], [np.nan, -0.5]]))) == "[[12.3, 0.0], [null, -50.0]]"


def test_score_tables_hold_intervals_and_the_majority(record: RunRecord) -> None:
    macro, accuracy, loss = score_tables(record)
    assert [table["name"] for table in (macro, accuracy, loss)] == ["macro-F1", "accuracy", "log-loss"]
    best = [row["cells"][0]["best"] for row in loss["rows"]]
    values = [row["cells"][0]["value"] for row in loss["rows"]]
    assert best == [value == min(values) for value in values]
    assert loss["rows"][1]["cells"][0]["text"] == "0.595"
    entropy = 0.5 * np.log(2) + 0.25 * np.log(4) + 0.25 * np.log(4)
    assert loss["majority"][0] == {"text": f"{entropy:.3f}", "label": "label frequencies"}
    assert [head["name"] for head in macro["heads"]] == ["laptop14", "restaurant14", "device"]
    edit = macro["rows"][1]
    assert edit["trainable"] == 34_560
    assert edit["cells"][0] | {"along": 0} == {
        "value": 0.655, "text": "65.5", "interval": "[62.1, 69.1]", "along": 0, "best": True,
    }  # fmt: skip
    low, value, high = edit["cells"][0]["along"]
    assert 0 <= low < value < high <= 100
    assert macro["majority"][0] == {"text": "22.2", "label": "positive"}


def test_budgets_and_confusions(record: RunRecord) -> None:
    one = next(p for p in budget_points(record) if (p["method"], p["test"]) == ("lora", "device"))
    assert one["trainable"] == 737_280 and one["seconds"] == 12.4
    assert one["macro_f1"] == {"value": 55.2, "low": 51.8, "high": 58.8, "n": 638}
    assert budget_points(replace(record, methods={"zero_shot": record.methods["zero_shot"]})) == []
    cell = confusion_tables(record)[0]["methods"][0]["rows"][0]["cells"][1]
    tip = "zero_shot: positive called negative\n20 aspects, 5.9 % of the positive ones"
    assert cell == {"count": "20", "share": 5.9, "tip": tip}


def test_predictions_are_embedded_in_order(
    tests: tuple[Dataset, ...], answers: dict[str, dict[str, tuple[Prediction, ...]]]
) -> None:
    shuffled = {m: {t: rows[::-1] for t, rows in by_test.items()} for m, by_test in answers.items()}
    found = explorer(answered(tests, shuffled))
    assert found["step"] == 1 and found["total"] == 6 and found["tests"] == ["laptop14", "restaurant14"]
    for i, (test, sentence, start, end, gold) in enumerate(found["examples"]):
        example = (tests[0].examples + tests[1].examples)[i]
        assert found["tests"][test] == ("laptop14" if i < 3 else "restaurant14")
        assert found["sentences"][sentence][start:end] == example.aspect
        assert ("positive", "negative", "neutral")[gold] == example.label
    edit = found["answers"][found["methods"].index("edit")]
    assert edit["labels"][:3] == [0, 1, 2] and edit["thousandths"][:3] == [800, 150, 50]


def test_disagreement_counts_examples(
    tests: tuple[Dataset, ...], answers: dict[str, dict[str, tuple[Prediction, ...]]]
) -> None:
    assert disagreement(answered(tests, answers)).startswith("The 5 methods disagree on 4 of 6")
    assert disagreement(answered(tests, {"full": answers["full"]})) == "`full` is wrong on 4 of 6 test examples."


def test_many_predictions_are_thinned_to_fit(
    tests: tuple[Dataset, ...], answers: dict[str, dict[str, tuple[Prediction, ...]]]
) -> None:
    rows = answered(tests, answers) * 500
    found = explorer(rows, largest=100_000)
    assert found["step"] > 1 and found["total"] == 3000
    assert len(json.dumps(found)) < 110_000
    assert found["ids"] == [row.example.id for row in rows[:: found["step"]]]


def test_five_methods_and_four_thousand_rows_stay_small(page_inputs: dict[str, Any]) -> None:
    (test, *_), answers = page_inputs["tests"], page_inputs["predictions"]
    first = test.examples[0]
    many = tuple(
        replace(first, id=f"many:{i}", text=f"{first.text} {i} " + "and so the story goes on and on " * 3)
        for i in range(4000)
    )
    rows = {
        method: {test.name: tuple(replace(by_test[test.name][0], id=e.id, text=e.text) for e in many)}
        for method, by_test in answers.items()
    }
    html = report_html(**page_inputs | {"tests": (test.with_examples(many),), "predictions": rows})
    assert payload(html)["predictions"]["step"] == 1
    assert len(html.encode()) < 3_000_000
