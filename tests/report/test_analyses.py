"""What an analysis found is shown wherever a run is: Markdown, page, figures, terminal, tracker."""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.image import imread
from rich.console import Console

from absa_edit.report.html import report_html
from absa_edit.report.markdown import report_markdown
from absa_edit.report.plots.scores import write_figures
from absa_edit.report.terminal import print_results
from absa_edit.results import AnalysisRecord, RunRecord
from absa_edit.storage import load, write_json
from absa_edit.tracing.effects import Effects


@pytest.fixture
def analysed(record: RunRecord, analysis: AnalysisRecord) -> RunRecord:
    return replace(record, analyses={"probe": analysis})


@pytest.fixture
def only(analysed: RunRecord) -> RunRecord:
    """A run of nothing but the analysis."""
    return replace(analysed, methods={}, before=None, comparisons=(), pooled=(), trace=None, plan=None, export=None)


def test_markdown_has_a_section_with_table_and_figure(analysed: RunRecord) -> None:
    text = report_markdown(analysed, figures=("analysis_probe.png",))
    section = text.split("## What can be read off\n\n")[1].split("\n## ")[0]
    assert section.startswith("Layer 4 says `most`.\n\nWhat was read.\n\n| layer | read |\n| --- | --- |\n")
    assert "| 4 | **40.0** of `all` |" in section and "![What can be read off](figures/analysis_probe.png)" in section


def test_the_page_has_a_section_with_the_chart_in_it(analysed: RunRecord) -> None:
    html = report_html(analysed)
    section = html.split('<section id="analysis-probe">')[1].split("</section>")[0]
    assert "<h2>What can be read off</h2>" in section and "Layer 4 says <code>most</code>." in section
    assert "<td><strong>40.0</strong> of <code>all</code></td>" in section and 'alt="share read by layer"' in section
    picture = re.search(r'src="data:image/svg\+xml;base64,([^"]+)"', section)
    assert picture and b"<svg" in b64decode(picture[1])
    assert '<a href="#analysis-probe">' in html and "img-src data:" in html
    assert report_html(analysed) == html


def test_a_section_needs_neither_table_nor_chart(analysed: RunRecord, analysis: AnalysisRecord) -> None:
    bare = replace(analysed, analyses={"probe": replace(analysis, section=replace(analysis.section, table=None))})
    bare = replace(
        bare, analyses={"probe": replace(analysis, section=replace(analysis.section, table=None, chart=None))}
    )
    assert "Layer 4 says" in report_html(bare) and "<img" not in report_html(bare)
    assert "Layer 4 says" in report_markdown(bare)


def test_the_chart_is_a_figure_of_the_run(
    analysed: RunRecord, make_effects: Callable[..., Effects], tmp_path: Path
) -> None:
    assert write_figures(analysed, make_effects(), tmp_path)[-1] == "analysis_probe.png"
    pixels = imread(tmp_path / "analysis_probe.png")[..., :3]
    assert ((pixels < 0.99).any(-1)).mean() > 0.02


def test_the_terminal_shows_sentence_and_table(only: RunRecord) -> None:
    console = Console(width=80)
    with console.capture() as caught:
        print_results(only, console)
    text = caught.get()
    assert "What can be read off" in text and "Layer 4 says most." in text and "What was read." in text
    assert re.search(r"4 +40\.0 of all", text) and "accuracy" not in text


def test_a_run_of_analyses_only_has_reports(only: RunRecord, tmp_path: Path) -> None:
    assert write_figures(only, None, tmp_path) == ("analysis_probe.png",)
    text = report_markdown(only, figures=("analysis_probe.png",))
    assert "## What can be read off" in text and "## Scores" not in text
    assert re.findall(r'<section id="([\w-]+)">', report_html(only)) == ["analysis-probe", "run"]


def test_what_is_kept_is_shown_again(analysed: RunRecord, tmp_path: Path) -> None:
    write_json(analysed, tmp_path / "results.json")
    again = load(RunRecord, tmp_path / "results.json")
    assert report_markdown(again) == report_markdown(analysed) and report_html(again) == report_html(analysed)
