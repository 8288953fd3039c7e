"""Figures are written, hold something, and their parts keep out of each other's way."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from numpy.testing import assert_allclose

from absa_edit.records import EditPlan, Part, Role, Site, Target, TokenGrid
from absa_edit.report.plots import token_heatmap
from absa_edit.report.plots.heatmap import _cell, _subtitle
from absa_edit.report.plots.scores import learning_curves, pareto, scores_figure, trace_heatmap, write_figures
from absa_edit.report.plots.style import PointLabel as Label
from absa_edit.report.plots.style import canvas, dress, label_points, looks, spread
from absa_edit.results import RunRecord
from absa_edit.tracing.effects import Effects


def colours_in(path: Path) -> int:
    pixels = (imread(path)[::4, ::4, :3] * 255).astype(np.uint8).reshape(-1, 3)
    return len(np.unique(pixels, axis=0))


def test_a_run_gets_all_its_figures(record: RunRecord, make_effects: Callable[..., Effects], tmp_path: Path) -> None:
    written = write_figures(record, make_effects(), tmp_path)
    assert written == ("trace.png", "scores.png", "pareto.png", "learning.png")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(written)
    assert all(colours_in(tmp_path / name) > 50 for name in written)
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()


def test_the_token_map_begins_at_the_first_corrupted_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With trace.tokens=all that is a token of the instruction."""
    shown: list[str] = []
    monkeypatch.setattr(
        token_heatmap, "save", lambda figure, path: shown.extend(t.get_text() for t in figure.axes[0].get_yticklabels())
    )
    restored = np.full((1, 4, 2), 0.25, np.float32)
    restored[0, [1, 3]] = 0.75
    roles = (Role.instruction, Role.instruction, Role.aspect, Role.last)
    grid = TokenGrid("1", ("Say", "how", "fan", "?"), roles, (Part.block,), 0.9, 0.25, restored)
    token_heatmap.token_heatmap(grid, tmp_path / "t.png", model="m")
    assert shown == ["how", "fan", "?"]


def test_figures_without_numbers_are_left_out(record: RunRecord, tmp_path: Path) -> None:
    assert write_figures(replace(record, methods={}), None, tmp_path) == ()
    only = replace(record, methods={"zero_shot": record.methods["zero_shot"]})
    assert write_figures(only, None, tmp_path) == ("scores.png",)
    with pytest.raises(ValueError, match="no budgets"):
        pareto(only, tmp_path / "pareto.png")


def test_a_frame_is_promised_only_where_one_is_drawn(
    record: RunRecord, make_effects: Callable[..., Effects], tmp_path: Path
) -> None:
    heads = EditPlan("trace", (Target(Site(2, Part.head, 1), 4),), 1, None)
    said = [_subtitle(make_effects(), plan, None) for plan in (record.plan, heads)]
    assert ["orange frame" in text for text in said] == [True, False]
    write_figures(replace(record, plan=heads), make_effects(), tmp_path)
    assert colours_in(tmp_path / "trace.png") > 50


def test_the_same_run_gives_the_same_bytes(record: RunRecord, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        learning_curves(record, tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_colours_go_by_role(record: RunRecord) -> None:
    chosen = {name: (look.colour, look.marker) for name, look in looks(record).items()}
    assert chosen == {
        "zero_shot": ("#6B7280", "x"),
        "edit": ("#0072B2", "o"),
        "random": ("#E69F00", "s"),
        "lora": ("#009E73", "D"),
        "full": ("#CC79A7", "^"),
    }
    others = {f"method {i}": record.methods["lora"] for i in range(30)}
    assert len(set(looks(replace(record, methods=record.methods | others)).values())) == 35


@pytest.mark.parametrize("tests", [1, 4])
def test_seven_methods_fit(make_record: Callable[..., RunRecord], tests: int, tmp_path: Path) -> None:
    names = ("edit", "random", "zero_shot", "lora", "full", "delta", "edit_wide")
    record = make_record(names, tests)
    assert len({looks(record)[name] for name in names}) == 7
    scores_figure(record, tmp_path / "scores.png")
    pareto(record, tmp_path / "pareto.png")
    assert colours_in(tmp_path / "scores.png") > 50


def test_deep_models_are_stacked(make_effects: Callable[..., Effects], tmp_path: Path) -> None:
    shapes = {}
    for layers in (12, 32):
        path = tmp_path / f"{layers}.png"
        trace_heatmap(make_effects(layers), path, model="m", data="d")
        shapes[layers] = imread(path).shape
    assert shapes[12][1] > 3 * shapes[12][0]
    assert shapes[32][1] < 2 * shapes[32][0]


def test_a_role_that_no_example_has_is_left_grey(make_effects: Callable[..., Effects], tmp_path: Path) -> None:
    effects = make_effects()
    aie, n = effects.aie.copy(), effects.n.copy()
    aie[:, 2], n[2] = np.nan, 0
    low, high = (np.where(np.isnan(aie), np.nan, values) for values in (effects.low, effects.high))
    trace_heatmap(replace(effects, aie=aie, low=low, high=high, n=n), tmp_path / "t.png", model="m", data="d")
    assert colours_in(tmp_path / "t.png") > 50


def test_cells_fit_two_characters_and_a_sign() -> None:
    assert [_cell(v, False) for v in (24.6, -1.2, -0.3, 0.2)] == ["25", "\N{MINUS SIGN}1", "0", "0"]
    assert [_cell(v, True) for v in (4.25, 0.31, -0.31, 0.04)] == ["4.2", ".3", "\N{MINUS SIGN}.3", "0"]


def test_spread_keeps_order_and_distance() -> None:
    assert_allclose(spread([1.0, 5.0, 9.0], 1.0), [1.0, 5.0, 9.0])
    assert_allclose(spread([5.0, 5.0, 5.0], 2.0), [3.0, 5.0, 7.0])
    placed = spread([3.0, 1.0, 3.1, 3.05, 9.0], 1.0)
    assert np.diff(np.sort(placed)).min() >= 1.0 - 1e-9
    assert np.argsort(placed).tolist() == np.argsort([3.0, 1.0, 3.1, 3.05, 9.0]).tolist()
    assert spread([], 1.0) == []


def test_labels_of_close_points_do_not_overlap() -> None:
    figure = canvas(7.0, 4.0)
    axes = figure.subplots()
    dress(axes, grid="y")
    axes.set(xlim=(0, 10), ylim=(0, 10))
    figure.draw_without_rendering()
    near = [Label(f"method {i}", "black", 5.0 + 0.2 * i, 5.0 + 0.1 * i, 4.5, 5.5) for i in range(5)]
    label_points(axes, near, [])
    boxes = [text.get_window_extent() for text in axes.texts]
    assert len(boxes) == 5
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
