"""`report.html` in a real browser: clicked through, by mouse and by keyboard, in light, dark and at phone width."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import CHROMIUM, Browser, Page
from matplotlib.image import imread

from absa_edit.report.html import report_html
from absa_edit.results import AnalysisRecord

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not here: apt-get install chromium")
TIP = "document.getElementById('tip').hidden ? '' : document.getElementById('tip').textContent"

CONTRAST = """(() => {
    const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
    const luminance = (colour) => {
        canvas.fillStyle = colour;
        canvas.fillRect(0, 0, 1, 1);
        const linear = (c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
        const [red, green, blue] = [...canvas.getImageData(0, 0, 1, 1).data].map((byte) => linear(byte / 255));
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
    };
    const ratios = [...document.querySelectorAll(".cell:not(.unsure, .none)")].map((cell) => {
        const { color, backgroundColor } = getComputedStyle(cell);
        const [dark, light] = [luminance(color), luminance(backgroundColor)].sort((a, b) => a - b);
        return (light + 0.05) / (dark + 0.05);
    });
    return Math.min(...ratios);
})()"""
"""The lowest contrast of a figure in a cell with its fill, by the formula of WCAG 2.2."""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    opened = Browser(tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


@pytest.fixture
def show(browser: Browser, page_inputs: dict[str, Any], tmp_path: Path) -> Iterator[Callable[..., Page]]:
    """Opens the report of a whole run; afterwards nothing may have been complained of or asked for."""
    path = tmp_path / "report.html"
    path.write_text(report_html(**page_inputs), encoding="utf-8")
    opened: list[Page] = []

    def open_page(**how: Any) -> Page:
        opened.append(browser.page(path, **how))
        return opened[-1]

    yield open_page
    for page in opened:
        assert page.complaints() == []
        assert page.requests() == [path.as_uri()]


def test_the_part_switch_redraws_the_map_and_frames_the_plan(show: Callable[..., Page]) -> None:
    page = show()
    cells = "#trace tbody .cell"
    block = page.texts(cells)
    assert len(block) == 7 * 12 and page.texts("#trace .options label") == ["block", "attention", "MLP"]
    assert page.run("document.querySelectorAll('#trace .cell[class*=edge-]').length") == 0
    page.click("#trace .options label", "attention")
    assert page.texts(cells) != block
    framed = "document.querySelectorAll('#trace .edge-{}').length"
    assert [page.run(framed.format(side)) for side in ("left", "right", "top", "bottom")] == [7, 7, 4, 4]


def test_a_cell_says_effect_interval_and_n(show: Callable[..., Page], page_inputs: dict[str, Any]) -> None:
    page, effects = show(), page_inputs["effects"]
    page.hover("#trace tbody tr:nth-child(2) td:nth-of-type(6)")
    value, low, high = (f"{100 * x[0, 1, 5]:+.1f}" for x in (effects.aie, effects.low, effects.high))
    assert page.run(TIP) == f"block, aspect, layer 5\n{value} points [{low}, {high}]\nn = 80"
    page.press("Escape")
    assert page.run(TIP) == ""


def test_the_map_is_read_by_keyboard(show: Callable[..., Page]) -> None:
    page = show()
    page.run("document.querySelector('#trace .options input').focus()")
    page.press("ArrowRight")  # to attention
    page.press("Tab")
    assert page.run(TIP).startswith("attention, before aspect, layer 0\n")
    for key in ("ArrowDown", "ArrowRight", "ArrowRight"):
        page.press(key)
    assert page.run(TIP).startswith("attention, aspect, layer 2\n")
    page.press("End")
    assert "layer 11" in page.run("document.activeElement.getAttribute('aria-label')")
    assert page.run("document.querySelectorAll('#trace td[tabindex=\"0\"]').length") == 1, "one stop of the Tab key"


def test_an_example_shows_its_own_map(show: Callable[..., Page]) -> None:
    page = show()
    assert page.texts("#examples .pick mark") == ["screen", "fan"]
    assert page.texts("#examples tbody .cell") == ["20"] * 4
    page.click("#examples .pick label", "The fan")
    assert page.texts("#examples tbody .cell") == ["18"] * 4


def test_scores_are_sorted_by_a_click(show: Callable[..., Page]) -> None:
    page, names = show(), "#scores .scores tbody th"
    assert page.texts(names) == ["zero_shot", "edit", "random", "lora", "full"]
    page.click("#scores th button", "laptop14")
    assert page.texts(names) == ["edit", "lora", "random", "full", "zero_shot"]
    page.click("#scores th button", "laptop14")
    assert page.texts(names) == ["zero_shot", "full", "random", "lora", "edit"]
    page.click("#scores .options label", "accuracy")
    assert page.texts(names) == ["zero_shot", "edit", "random", "lora", "full"], "each table has its own order"
    assert page.run("document.querySelector('.scores th[aria-sort]').getAttribute('aria-sort')") == "ascending"


def test_charts_have_a_point_a_method_that_can_be_reached(show: Callable[..., Page]) -> None:
    page = show()
    reached = "[...document.querySelectorAll('#{} [data-tip][tabindex]')].map((mark) => mark.dataset.tip)"
    tips = page.run(reached.format("budget"))
    assert sorted(tip.split(" on ")[0] for tip in tips) == ["edit", "full", "lora", "random"]
    assert "edit on laptop14\nmacro-F1 65.5 [62.1, 69.1], n = 638\n34,560 parameters (0.20 %), 12 s" in tips
    assert sorted(page.texts("#budget .label")) == ["edit", "full", "lora", "random", "zero_shot"]
    page.click("#budget .options label", "device")
    page.click("#budget .options label", "seconds")
    assert "edit on device\nmacro-F1 60.1" in "\n".join(page.run(reached.format("budget")))
    assert len(page.run(reached.format("learning"))) == 4 * 3


def test_predictions_are_filtered(show: Callable[..., Page]) -> None:
    page = show()

    def choose(title: str, option: str) -> None:
        """By keyboard: the closed list takes Home and the arrows."""
        options = page.run(
            f"""(() => {{
                const labels = [...document.querySelectorAll("#predictions label")];
                const select = labels.find((label) => label.firstChild.data === "{title}").lastChild;
                select.focus();
                return [...select.options].map((option) => option.text);
            }})()"""
        )
        for key in ["Home"] + ["ArrowDown"] * options.index(option):
            page.press(key)

    rows = "#predictions .rows > li"
    assert page.texts("#predictions .count") == ["6 of 6 test examples"]
    choose("wrong", "full")
    assert page.texts("#predictions .count") == ["4 of 6 test examples"]
    assert all("\N{BALLOT X} positive" in row for row in page.texts(rows))
    choose("test set", "laptop14")
    choose("gold label", "neutral")
    assert page.texts(rows + " mark") == ["keyboard"]
    choose("disagreement", "zero_shot and edit")
    assert page.texts("#predictions .count") == ["0 of 6 test examples"]
    choose("disagreement", "edit and full")
    (row,) = page.texts(rows)
    assert "gold neutral" in row and "0.150 0.050 0.800" in row and "0.800 0.150 0.050" in row


def test_only_some_rows_are_made_at_first(browser: Browser, page_inputs: dict[str, Any], tmp_path: Path) -> None:
    tests, predictions = page_inputs["tests"], page_inputs["predictions"]
    repeated = tuple(test.with_examples(test.examples * 500) for test in tests)
    path = tmp_path / "many.html"
    path.write_text(report_html(**page_inputs | {"tests": repeated, "predictions": predictions}), encoding="utf-8")
    page = browser.page(path)
    made = "document.querySelectorAll('#predictions .rows > li').length"
    assert page.texts("#predictions .count") == ["3,000 of 3,000 test examples"] and page.run(made) == 20
    page.click("#predictions button", "Show more")
    assert page.run(made) == 40 and page.complaints() == []


def test_five_labels_without_aspects_are_all_explored(
    browser: Browser, make_page_inputs: Callable[..., dict[str, Any]], analysis: AnalysisRecord, tmp_path: Path
) -> None:
    labels = ("very bad", "bad", "fair", "good", "very good")
    inputs = make_page_inputs(labels, "sentence_polarity")
    record = replace(inputs["record"], analyses={"probe": analysis})
    path = tmp_path / "five.html"
    path.write_text(report_html(**inputs | {"record": record}), encoding="utf-8")
    page = browser.page(path)
    assert page.texts("#predictions .key") == list(labels)
    assert len(page.texts("#predictions .rows > li")) == 10 and page.texts("#predictions mark") == []
    second = page.texts("#predictions .rows > li")[1]
    assert "gold very bad" in second and "\N{BALLOT X} bad" in second and "0.100 0.600 0.100 0.100 0.100" in second
    bars = "[...document.querySelector('#predictions .stack').children].map((bar) => getComputedStyle(bar).{})"
    assert len(set(page.run(bars.format("backgroundColor")))) == 5
    shares = [float(width.removesuffix("px")) for width in page.run(bars.format("width"))]
    assert shares[0] / sum(shares) == pytest.approx(0.6, abs=0.01)
    assert page.texts("#confusion .confusion thead th")[:5] == list(labels)
    assert len(page.texts("#confusion .confusion tbody .cell")) == 3 * 25
    assert page.run("document.querySelector('#analysis-probe img').naturalWidth") > 100, "the policy lets it in"
    assert page.complaints() == []
    for width in (768, 320):
        page.resize(width, 700)
        assert page.run("document.documentElement.scrollWidth") <= width


def test_text_from_data_stays_text(show: Callable[..., Page], page_inputs: dict[str, Any]) -> None:
    page = show()
    first, hostile, _ = page.texts("#predictions .rows > li > p:first-child")[:3]
    assert hostile.split() == page_inputs["tests"][0].examples[1].text.split()
    assert first == "\N{THUMBS UP SIGN} The screen is lovely."
    assert page.texts("#predictions mark")[:2] == ["screen", "fan"], "offsets count characters, not 16-bit units"
    assert page.run("document.title") == "laptop14: reviewlm, seed 0"
    assert page.run("document.querySelectorAll('#predictions b').length") == 6, "those of the gold labels"


def test_a_narrow_page_does_not_scroll_sideways(show: Callable[..., Page]) -> None:
    page = show()
    page.run("document.querySelectorAll('details').forEach((one) => (one.open = true))")
    for width in (768, 375, 320):
        page.resize(width, 700)
        assert page.run("document.documentElement.scrollWidth") <= width


def test_light_dark_and_the_button(show: Callable[..., Page]) -> None:
    page = show(dark=True)
    for theme, dark in (("auto", True), ("light", False), ("dark", True)):
        assert page.texts("#theme") == [f"Theme: {theme}"]
        pixels = (imread(BytesIO(page.screenshot()))[::2, ::2, :3] * 255).astype(int).reshape(-1, 3)
        colours, counts = np.unique(pixels, axis=0, return_counts=True)
        assert len(colours) > 100, "nothing is drawn"
        assert colours[counts.argmax()].tolist() == ([21, 24, 29] if dark else [255, 255, 255])
        assert page.run(CONTRAST) >= 4.5
        page.click("#theme")
