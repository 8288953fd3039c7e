"""What the terminal shows at the end of a run."""

from __future__ import annotations

import io
import logging
import re
import sys
import time
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from rich.console import Console

from absa_edit.report import terminal
from absa_edit.report.terminal import bar, print_results
from absa_edit.results import RunRecord


def shown(record: RunRecord, width: int) -> str:
    console = Console(width=width, record=True, quiet=False, file=open("/dev/null", "w"))  # noqa: SIM115
    with console.file:
        print_results(record, console)
    return console.export_text()


def test_the_table_has_scores_intervals_cost_and_conclusions(record: RunRecord) -> None:
    text = shown(record, 200)
    for piece in (
        "(own test, n = 638)", "(out of domain, n = 638)", "65.5 [62.1, 69.1]", "34,560", "0.20 %", "12 s",
        "zero_shot", "majority class", "50.0 (positive)",
        "Tracing did not beat random placement on laptop14",
    ):  # fmt: skip
        assert piece in text
    assert text.index("laptop14  ") < text.index("restaurant14  ")
    assert "BUNDLED" not in text


@pytest.mark.parametrize("width", [80, 100, 120])
def test_no_figure_is_broken_on_a_narrow_terminal(make_record: Callable[..., RunRecord], width: int) -> None:
    text = shown(make_record(tests=4), width)
    assert max(map(len, text.splitlines())) <= width
    for test in ("laptop14", "restaurant14", "device", "service"):
        assert any(test in line and "…" not in line for line in text.splitlines())
    assert text.count("58.8 [55.4, 62.4]") == 1


def test_the_best_of_a_column_is_bold(record: RunRecord) -> None:
    console = Console(width=200, force_terminal=True, color_system="standard", record=True)
    with console.capture() as caught:
        print_results(record, console)
    assert "\x1b[1m65.5 [62.1, 69.1]" in caught.get()
    assert "\x1b[1m63.3" not in caught.get()


def test_the_bundled_sample_is_announced(sample_record: RunRecord) -> None:
    assert "BUNDLED SAMPLE: laptop-sample" in shown(sample_record, 100)


def test_progress_tells_examples_a_second_and_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("COLUMNS", "120")
    for _ in bar(iter(range(4)), "trace", 4, unit="example"):
        time.sleep(0.15)
    told = sys.stderr.getvalue()  # type: ignore[attr-defined]
    assert re.search(r"trace:.*[1-3]/4 \[\d\d:\d\d<\d\d:\d\d, +[\d.]+(example/s|s/example)\]", told), told


def test_progress_in_a_file_is_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = iter(range(0, 10_000, 20))  # every look at the clock is 20 s after the last
    monkeypatch.setattr(terminal, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    with caplog.at_level(logging.INFO, "absa_edit"):
        assert list(bar(iter("abcd"), "trace", 4, unit="example")) == list("abcd")
        assert list(bar(iter("abcd"), "edit 1/3")) == list("abcd")
    assert caplog.messages == [
        "trace: 1 of 4 examples, 40.0 s each, 2 min 00 s left",
        "trace: 3 of 4 examples, 26.7 s each, 27 s left",
        "edit 1/3: 1 batches, 40.0 s each",
        "edit 1/3: 3 batches, 26.7 s each",
    ]
