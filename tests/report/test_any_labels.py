"""Reports of tasks with other labels, and without aspects: nothing is dropped, nothing is made up."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from rich.console import Console

from absa_edit.report.html import report_html
from absa_edit.report.html.scores import confusion_tables
from absa_edit.report.markdown import report_markdown
from absa_edit.report.plots.style import LABELS, label_colours
from absa_edit.report.terminal import print_results
from absa_edit.tracking.log_records import publish_comparison, publish_method
from absa_edit.tracking.wandb import NullTracker, Value

FIVE = ("very bad", "bad", "fair", "good", "very good")
TWO = ("yes", "no")
TASKS = ((FIVE, "emotions"), (TWO, "sentence_polarity"))


@pytest.fixture(params=TASKS, ids=["five", "two"])
def inputs(request: pytest.FixtureRequest, make_page_inputs: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    return make_page_inputs(*request.param)


def test_markdown_has_every_label(inputs: dict[str, Any]) -> None:
    labels, text = inputs["record"].labels, report_markdown(inputs["record"])
    counts = " | ".join(str(7 + i) for i in range(len(labels)))
    assert f"| split | set | source | n | {' | '.join(labels)} |" in text and f"| csv | 638 | {counts} |" in text
    f1 = " | ".join(f"{90 - 10 * i:.1f}" for i in range(len(labels)))
    assert f"| F1 {' | F1 '.join(labels)} |" in text and f"| edit | mine | 638 | {f1} |" in text
    assert "aspect" not in text


def test_the_page_has_every_label(inputs: dict[str, Any]) -> None:
    record, html = inputs["record"], report_html(**inputs)
    labels, size = list(record.labels), len(record.labels)
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    assert found
    predictions = json.loads(found[1])["predictions"]
    assert predictions["labels"] == labels
    edit = predictions["answers"][predictions["methods"].index("edit")]
    assert edit["labels"] == [(i // 2 + i % 2) % size for i in range(2 * size)]
    assert edit["thousandths"][:size] == [600, *[round(1000 * round(0.4 / (size - 1), 3))] * (size - 1)]
    assert [row[2:] for row in predictions["examples"]] == [[0, 0, i // 2] for i in range(2 * size)]
    assert html.count("  --label-") == size
    (mine,) = confusion_tables(record)
    rows = mine["methods"][0]["rows"]
    assert [row["gold"] for row in rows] == labels and {len(row["cells"]) for row in rows} == {size}
    assert rows[1]["cells"][0]["tip"].startswith(f"zero_shot: {labels[1]} called {labels[0]}\n11 sentences, ")


def test_the_terminal_scores_the_set(inputs: dict[str, Any]) -> None:
    console = Console(width=120)
    with console.capture() as caught:
        print_results(inputs["record"], console)
    last, size = inputs["record"].labels[-1], len(inputs["record"].labels)
    share = (6 + size) / 638
    assert f"{100 * share:.1f} ({last})" in (text := caught.get())
    assert f"{100 * 2 * share / (1 + share) / size:.1f} ({last})" in text


@dataclass
class Notebook(NullTracker):
    tables: dict[str, tuple[list[str], list[list[Value]]]] = field(default_factory=dict)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Value]]) -> None:
        self.tables[name] = (list(columns), [list(row) for row in rows])


def test_the_tracker_is_given_every_label(inputs: dict[str, Any]) -> None:
    record, notebook = inputs["record"], Notebook()
    publish_method(notebook, "edit", record.methods["edit"], inputs["predictions"]["edit"]["mine"])
    heads, rows = notebook.tables["confusion/mine"]
    assert heads == ["gold", *(f"predicted_{label}" for label in record.labels)]
    assert [row[0] for row in rows] == list(record.labels) and rows[1][1:3] == [11, 12]
    heads, rows = notebook.tables["predictions"]
    assert [h for h in heads if h.startswith("p_")] == [f"p_{label}" for label in record.labels]
    assert len(rows) == 2 * len(record.labels)
    publish_comparison(notebook, record)
    assert len(notebook.tables["compare/scores"][1]) == 3


def test_labels_have_colours_of_their_own() -> None:
    assert len(set(label_colours(len(LABELS)))) == len(LABELS) and len(label_colours(28)) == 28
