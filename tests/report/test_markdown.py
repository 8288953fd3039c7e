"""`report.md` holds the values, their intervals and the unwelcome ones too."""

from __future__ import annotations

import ast
import re
from dataclasses import replace
from typing import Any

import pytest

from absa_edit.report.html import report_html
from absa_edit.report.markdown import report_markdown
from absa_edit.results import Agreement, Interval, RunRecord, Sampled, TraceSummary
from absa_edit.table import pipe_table


@pytest.mark.parametrize(
    "piece",
    [
        "# laptop14: reviewlm, seed 0",
        "| train | laptop14 | xml | 2,282 | 1,141 | 570 | 571 | conflict 45, leaked 12 |",
        "13 left out because the clean run answers wrong, 7 because the corrupted run answers right",
        "because the corrupted run answers right, **80 kept**",
        "Total effect of the corruption: 41.3 [36.3, 46.5]",
        "attn and mlp of layers 4-7 of 12 (from 0), 36-64 % of the depth, rank 4, 34,560 parameters",
        "Stability 0.83",
        "attn  ....####....",
        "laptop14 (own test, n = 638) | restaurant14 (out of domain, n = 638)",
        "| edit | **65.5 [62.1, 69.1]** | 71.2 [67.8, 74.8] |",
        "| majority class | 22.2 (positive) |",
        "| edit | random | laptop14 | macro-F1 | +1.4 [\N{MINUS SIGN}0.6, +3.4] | 0.2100 | 0.6300 | 638 |",
        "**0.0012**",
        "| edit | **0.595 [0.561, 0.631]** | 0.538 [0.504, 0.574] |",
        "| edit | laptop14 | 2.11 | 0.595 [0.561, 0.631] | 0.545 [0.511, 0.581] | 5.9 [2.5, 9.6] | 5.4 [2.0, 9.0] |",
        "| 14.9 [11.5, 18.5] | 7.4 / 14.9 / 29.8 |",
        "| majority class | 1.040 (label frequencies) |",
        "| edit | random | out of domain (restaurant14, device) | log-loss | \N{MINUS SIGN}0.031 "
        "[\N{MINUS SIGN}0.051, \N{MINUS SIGN}0.011] | 0.0090 | **0.0180** | 1,276 |",
        "Tracing did not beat random placement on laptop14",
        "restaurant14 +2.8 [+0.8, +4.8] (p = 0.012 corrected)",
        "one seed and one random placement",
        "| full | full | 17,500,000 | 100 % | 0.0003 | 12 s | 3 (2) | 16 (16) | 812 MB | - | 70.00 MB | 2.5 s |",
        "| full | 48.75 [46.75, 50.75] | +56.0 % | 100 % |",
        "Perplexity on 5,021 words of neutral text",
        "| model | log-loss on restaurant14 | log-loss on device | accuracy on general-sample | log-loss on general-",
        "| the base model | 0.900 [0.866, 0.936] | 0.920 [0.886, 0.956] | 70.0 [66.6, 73.6] | 0.580 [0.546, 0.616] |",
        "| full | 1.075 [1.041, 1.111] | 1.095 [1.061, 1.131] | 52.5 [49.1, 56.1] | 0.755 [0.721, 0.791] |",
        "all 1,914 test questions again: 100 % the same labels",
        "largest gap of a label's log-probability 2.1e-06",
        "python train.py +experiment=laptop14",
        "torch 2.13.0",
    ],
)
def test_the_report_says(record: RunRecord, piece: str) -> None:
    assert piece in report_markdown(record, command="python train.py +experiment=laptop14")


def test_scores_without_leaked_rows_stand_beside_those_of_all(record: RunRecord) -> None:
    edit = record.methods["edit"]
    every = edit.scores["laptop14"]
    clean = replace(every, accuracy=Interval(0.7, 0.6, 0.8, 600), macro_f1=Interval(0.65, 0.55, 0.75, 600))
    text = report_markdown(
        replace(record, methods=record.methods | {"edit": replace(edit, leak_free={"laptop14": clean})})
    )
    of_all = f"{100 * every.accuracy.value:.1f} | 65.0 [55.0, 75.0] | {100 * every.macro_f1.value:.1f}"
    assert f"| edit | laptop14 | 600 | 38 | 70.0 [60.0, 80.0] | {of_all} |" in text
    assert "without leaked" not in report_markdown(record)


def test_drawn_answers_stand_beside_the_likeliest_labels(record: RunRecord) -> None:
    edit = record.methods["edit"]
    drawn = {"laptop14": Sampled(Interval(0.5, 0.4, 0.6, 638), 63)}
    text = report_markdown(replace(record, methods=record.methods | {"edit": replace(edit, sampled=drawn)}))
    likeliest = f"{100 * edit.scores['laptop14'].accuracy.value:.1f}"
    assert f"| edit | laptop14 | 638 | 50.0 [40.0, 60.0] | {likeliest} | 9.87 % |" in text
    assert "drawn" not in report_markdown(record)


def test_only_written_figures_are_embedded_by_relative_path(record: RunRecord) -> None:
    text = report_markdown(record, figures=("trace.png", "scores.png"))
    assert re.findall(r"!\[.*\]\((.*)\)", text) == ["figures/trace.png", "figures/scores.png"]


def test_every_table_row_has_as_many_cells_as_its_head(record: RunRecord) -> None:
    for table in re.findall(r"(?:^\|.*\|\n)+", report_markdown(record), flags=re.MULTILINE):
        assert len({line.count("|") for line in table.splitlines()}) == 1


def test_the_code_that_loads_the_export_parses(record: RunRecord) -> None:
    for model in ("reviewlm", "org/model"):
        text = report_markdown(replace(record, model=replace(record.model, source=model)))
        code = text.split("```python\n")[1].split("```")[0]
        ast.parse(code)
        assert "export/merged" in code and "export/adapter" in code
    assert 'base = "org/model"' in code


def test_an_adapter_alone_is_loaded_with_all_that_it_holds(record: RunRecord) -> None:
    """peft would leave out a representation edit, which no merged checkpoint can hold."""
    assert record.export
    text = report_markdown(replace(record, export=replace(record.export, merged=None)))
    code = text.split("```python\n")[1].split("```")[0]
    assert f'absa_edit.load("{record.export.adapter}")' in code and "Peft" not in code


def test_a_missing_merged_checkpoint_is_explained(record: RunRecord) -> None:
    assert record.export
    export = replace(record.export, merged=None, not_merged="OFT cannot be folded into the weights (no way)")
    for text in (report_markdown(replace(record, export=export)), report_html(replace(record, export=export))):
        assert "There is no merged checkpoint: OFT cannot be folded into the weights (no way)." in text
    assert "no merged" not in report_markdown(record)


def test_a_trace_without_the_filter_does_not_say_that_it_left_anything_out(record: RunRecord) -> None:
    assert record.trace
    counts = replace(record.trace.counts, kept=100)
    text = report_markdown(replace(record, trace=replace(record.trace, counts=counts)))
    assert (
        "none left out for their answers, though the clean run answers 13 wrong" in text
        and "left out because" not in text
    )


@pytest.mark.parametrize("page", [True, False])
def test_an_estimated_trace_is_called_one_and_says_how_far_to_trust_it(page_inputs: dict[str, Any], page: bool) -> None:
    record = page_inputs["record"]
    trust = Agreement(Interval(0.31, 0.2, 0.4, 12), Interval(0.6, 0.5, 0.7, 12), 10)
    peak = replace(record.trace.peak, estimated=True)
    estimated = replace(record.trace, engine="attribution", agreement=trust, peak=peak)

    def said(of: TraceSummary) -> str:
        changed = replace(record, trace=of)
        return report_html(**page_inputs | {"record": changed}) if page else report_markdown(changed, figures=())

    for told in (
        "estimated",
        "is estimated to give back",
        "on 12 examples: rank correlation in percent 31.0 [20.0, 40.0]",
    ):
        assert told in said(estimated) and told not in said(record.trace)
    auto = said(replace(estimated, engine="auto", cells_run=28, agreement=None))
    assert "but for the 28 cells that can decide a plan, which were run" in auto and "was not measured" in auto


def test_the_sample_is_announced_first(sample_record: RunRecord) -> None:
    assert report_markdown(sample_record).splitlines()[2].startswith("> **BUNDLED SAMPLE: laptop-sample")


def test_a_run_of_the_trace_alone_has_a_report(record: RunRecord) -> None:
    text = report_markdown(replace(record, methods={}, comparisons=(), export=None, plan=None))
    assert "## Trace" in text and "## Scores" not in text and "## Cost" not in text


def test_bars_in_cells_are_escaped() -> None:
    assert pipe_table(["a"], [["x|y"]])[-1] == r"| x\|y |"
