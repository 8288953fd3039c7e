"""Records as a notebook and a prompt show them."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from absa_edit import html_table
from absa_edit.records import EditPlan, Part, Role, Site, Target, Trace, TraceCounts
from absa_edit.results import Interval, Score


@pytest.fixture
def small_trace() -> Trace:
    restored = np.full((2, 1, 2, 3), 0.2)
    restored[:, 0, 1, 2] = 0.9
    restored[:, 0, 0] = np.nan
    return Trace(
        "exact", "noise", "sentence", 0.1, 1, 1, (Part.mlp,), (Role.after, Role.last), 3, TraceCounts(5, 2, 1, 2), 1.0,
        ("a", "b"), ("a", "b"), np.ones(2), np.full(2, 0.2), restored, np.ones(2), np.ones(2), restored,
    )  # fmt: skip


class Cells(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []
        self.feed(html)
        assert not self.open, "every tag is closed"

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_a_trace_is_a_heat_map(small_trace: Trace) -> None:
    assert repr(small_trace) == "Trace(exact, noise on sentence, 2 of 5 examples, peak mlp@2 at last +70.0 points)"
    html = small_trace._repr_html_()
    assert Cells(html).texts[-9:] == ["mlp", "0", "1", "2", "after", "last", "0", "0", "70"]
    assert "rgba(0,114,178,0.80)" in html, "the strongest cell has the strongest colour"


def test_a_trace_of_heads_alone_has_a_line(small_trace: Trace) -> None:
    assert repr(replace(small_trace, parts=())) == "Trace(exact, noise on sentence, 2 of 5 examples)"


def test_a_plan_is_its_ranks_by_layer() -> None:
    plan = EditPlan("trace", (Target(Site(1, Part.attn), 4), Target(Site(2, Part.head, 3), 2)), 1234, 0.875)
    assert repr(plan) == "EditPlan(trace: attn+head of layers 1,2, 1,234 parameters, stability 0.88)"
    assert Cells(plan._repr_html_()).texts[1:] == ["rank", "0", "1", "2", "attn", "4", "head 3", "2"]


def test_heads_stand_in_order() -> None:
    plan = EditPlan("trace", tuple(Target(Site(0, Part.head, i), 4) for i in (2, 10)), 1234)
    assert Cells(plan._repr_html_()).texts[1:] == ["rank", "0", "head 2", "4", "head 10", "4"]


def test_a_score_is_its_intervals_and_confusion() -> None:
    score = Score(
        Interval(0.715, 0.68, 0.749, 300), Interval(0.65, 0.6, 0.7, 300),
        {"positive": 0.7, "negative": 0.6, "neutral": 0.5}, ((10, 1, 2), (3, 20, 4), (5, 6, 30)),
            Interval(0.8123, 0.75, 0.87, 300),
    )  # fmt: skip
    texts = Cells(score._repr_html_()).texts
    assert texts[texts.index("log-loss") :][:3] == ["log-loss", "0.812", "0.750 to 0.870"]
    assert texts[texts.index("accuracy (%)") :][:3] == ["accuracy (%)", "71.5", "68.0 to 74.9"]
    assert texts[-5:] == ["neutral", "5", "6", "30", "50.0"]


def test_text_stays_text() -> None:
    assert "<script>" not in html_table.table("<script>", ["<b>"], [["<i>"]])
    assert "&lt;i&gt;" in html_table.table("", [], [["<i>"]])
