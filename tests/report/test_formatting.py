"""Numbers as people read them."""

from __future__ import annotations

import pytest

from absa_edit.records import EditPlan, Part, Site, Target
from absa_edit.report import formatting
from absa_edit.report.formatting import MINUS
from absa_edit.results import Interval


@pytest.mark.parametrize(
    ("share", "text"),
    [(0, "0 %"), (0.00004, "0.004 %"), (0.00198, "0.20 %"), (0.0421, "4.21 %"), (0.5, "50 %"), (1, "100 %")],
)
def test_percent_keeps_small_budgets_apart(share: float, text: str) -> None:
    assert formatting.percent(share) == text


def test_points_have_a_sign_and_no_negative_zero() -> None:
    assert formatting.points(0.0149) == "+1.5"
    assert formatting.points(-0.003) == f"{MINUS}0.3"
    assert formatting.points(-0.0001) == "+0.0"


def test_log_loss_is_written_in_nats_and_shares_in_percent() -> None:
    score = Interval(0.5123, 0.48, 0.55, 10)
    assert formatting.score("macro_f1", score) == "51.2 [48.0, 55.0]"
    assert formatting.score("log_loss", score) == "0.512 [0.480, 0.550]"
    assert (formatting.value("accuracy", 0.5123), formatting.value("log_loss", 0.5123)) == ("51.2", "0.512")
    assert (formatting.change("accuracy", -0.0149), formatting.change("log_loss", -0.0149)) == (
        f"{MINUS}1.5",
        f"{MINUS}0.015",
    )
    assert formatting.change("log_loss", -0.0001) == "+0.000"
    assert formatting.changes("log_loss", -0.02, 0.01) == f"[{MINUS}0.020, +0.010]"


@pytest.mark.parametrize(
    ("seconds", "text"), [(4.21, "4.2 s"), (42.4, "42 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")]
)
def test_duration(seconds: float, text: str) -> None:
    assert formatting.duration(seconds) == text


def test_p_value() -> None:
    assert [formatting.p_value(p) for p in (0.0004, 0.0341, 0.52)] == ["p < 0.001", "p = 0.034", "p = 0.52"]


def test_short_counts() -> None:
    assert [formatting.short(n) for n in (940, 34_560, 6_738_000_000)] == ["940", "34.6k", "6.74B"]


def test_runs_join_neighbours() -> None:
    assert formatting.runs((4, 5, 6, 9)) == "4-6, 9"
    assert formatting.runs(()) == ""


def test_plan_sketch_marks_the_edited_layers() -> None:
    targets = tuple(Target(Site(layer, Part.mlp), 4) for layer in (1, 2))
    assert formatting.plan_sketch(EditPlan("trace", targets, 1), 4) == ["mlp   .##."]
