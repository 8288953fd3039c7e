"""What trackers are given, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from absa_edit.records import Trace
from absa_edit.results import AnalysisRecord, ExportRecord, Prediction, RunRecord, Sampled
from absa_edit.tracing.effects import Effects, trace_effects
from absa_edit.tracking import log_records as module
from absa_edit.tracking.log_records import (
    publish_analysis,
    publish_comparison,
    publish_epoch,
    publish_export,
    publish_method,
    publish_trace,
)
from absa_edit.tracking.wandb import Value


@dataclass
class Notebook:
    """A tracker that writes down what it is given."""

    points: list[tuple[int | None, dict[str, int | float]]] = field(default_factory=list)
    final: dict[str, Value] = field(default_factory=dict)
    tables: dict[str, tuple[list[str], list[list[Value]]]] = field(default_factory=dict)
    kept: dict[str, tuple[str, Path]] = field(default_factory=dict)

    def log(self, metrics: Mapping[str, int | float], step: int | None = None) -> None:
        self.points.append((step, dict(metrics)))

    def summary(self, values: Mapping[str, Value]) -> None:
        self.final |= values

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Value]]) -> None:
        self.tables[name] = (list(columns), [list(row) for row in rows])

    def image(self, name: str, path: Path) -> None:
        self.kept[name] = ("image", path)

    def artifact(self, name: str, kind: str, folder: Path) -> None:
        self.kept[name] = (kind, folder)


@pytest.fixture
def notebook() -> Notebook:
    return Notebook()


def test_epochs_become_namespaced_points(notebook: Notebook) -> None:
    publish_epoch(notebook, {"epoch": 2.0, "loss": 0.5, "dev_macro_f1": 0.6, "seconds": 3.0})
    assert notebook.points == [(2, {"fit/epoch": 2.0, "fit/loss": 0.5, "dev/macro_f1": 0.6, "fit/seconds": 3.0})]


def test_trace_becomes_a_table_of_cells(notebook: Notebook, trace: Trace) -> None:
    effects = trace_effects(trace, draws=20, rng=np.random.default_rng(0)).parts
    publish_trace(notebook, effects, trace, Path("figures/trace.png"))
    columns, rows = notebook.tables["trace/effects"]
    assert columns == ["part", "role", "layer", "indirect_effect", "low", "high", "n"]
    assert len(rows) == 3 * 2 * 2 and rows[0][:3] == ["block", "aspect", 0]
    assert rows[0][3] == pytest.approx(0.4 - 0.85 / 4) and rows[0][6] == 2
    assert notebook.final["trace/examples_kept"] == 80
    assert notebook.final["trace/total_effect"] == pytest.approx(0.6375)
    assert notebook.kept == {"trace/heatmap": ("image", Path("figures/trace.png"))}


def test_cells_without_examples_are_empty(notebook: Notebook, make_effects: object, trace: Trace) -> None:
    effects: Effects = make_effects()  # type: ignore[operator]
    effects = replace(effects, aie=np.full_like(effects.aie, np.nan))
    publish_trace(notebook, effects, trace)
    assert {row[3] for row in notebook.tables["trace/effects"][1]} == {None}


def test_method_becomes_scores_with_intervals_cost_and_predictions(
    notebook: Notebook, record: RunRecord, predictions: tuple[Prediction, ...]
) -> None:
    edit = record.methods["edit"]
    besides = {"leak_free": edit.scores, "sampled": {"laptop14": Sampled(edit.scores["laptop14"].accuracy, 7)}}
    publish_method(notebook, "edit", replace(edit, **besides), predictions)
    said = notebook.final
    assert said["test/laptop14/accuracy"] == pytest.approx(0.716) and said["test/laptop14/accuracy_n"] == 638
    assert said["test/laptop14/leak_free/accuracy"] == said["test/laptop14/sampled/accuracy"] == pytest.approx(0.716)
    assert said["test/laptop14/sampled/no_label"] == 7
    assert said["cost/trainable"] == 34_560 and said["cost/fit_seconds"] == 12.4
    assert said["damage/perplexity"] == pytest.approx(31.28456) and said["damage/neutral_words"] == 5021
    assert said["test/laptop14/log_loss"] == pytest.approx(0.595) and said["dev/temperature"] == pytest.approx(2.112)
    assert said["test/laptop14/ece_low"] == pytest.approx(0.0255)
    assert said["test/laptop14/with_temperature/log_loss"] == pytest.approx(0.545)
    assert said["retention/device/log_loss"] == pytest.approx(0.9203456)
    assert said["retention/general-sample/accuracy_n"] == 120
    columns, rows = notebook.tables["predictions"]
    assert dict(zip(columns, rows[1], strict=True)) == {
        "id": "laptop14:1", "test": "laptop14", "text": "The fan is loud.", "aspect": "fan",
        "gold": "negative", "predicted": "negative", "correct": True,
        "p_positive": 0.1, "p_negative": 0.7, "p_neutral": 0.2,
    }  # fmt: skip
    columns, rows = notebook.tables["confusion/laptop14"]
    assert columns == ["gold", "predicted_positive", "predicted_negative", "predicted_neutral"]
    assert [row[1:] for row in rows] == [list(row) for row in record.methods["edit"].scores["laptop14"].confusion]


def test_long_predictions_are_cut_and_counted(
    notebook: Notebook,
    record: RunRecord,
    predictions: tuple[Prediction, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MOST_PREDICTIONS", 4)
    publish_method(notebook, "zero_shot", record.methods["zero_shot"], predictions)
    assert len(notebook.tables["predictions"][1]) == 4 and notebook.final["predictions/left_out"] == 2
    assert "cost/fit_seconds" not in notebook.final


def test_comparison_is_the_finished_table(notebook: Notebook, record: RunRecord) -> None:
    publish_comparison(notebook, record, [Path("figures/scores.png")])
    columns, rows = notebook.tables["compare/scores"]
    assert len(rows) == 15 and {"macro_f1_low", "macro_f1_high", "n", "perplexity"} <= set(columns)
    assert len(notebook.tables["compare/paired"][1]) == 4
    assert "did not beat random" in str(notebook.tables["compare/findings"][1][0][0])
    assert notebook.final["compare/edit-random/laptop14/macro_f1_p"] == 0.21
    assert notebook.tables["compare/pooled"][1][1][3] == "restaurant14, device"
    assert notebook.final["compare/edit-random/out of domain/log_loss"] == -0.031
    assert "figures/scores" in notebook.kept


def test_an_analysis_gives_its_numbers_table_and_chart(notebook: Notebook, analysis: AnalysisRecord) -> None:
    publish_analysis(notebook, "probe", analysis, Path("figures/probe.png"))
    assert notebook.final == {
        "analysis/probe/best": 0.7, "analysis/probe/layer": 4, "analysis/probe/finding": "Layer 4 says `most`."
    }  # fmt: skip
    heads, rows = notebook.tables["analysis/probe"]
    assert heads == ["layer", "read"] and len(rows) == 4
    assert notebook.kept == {"figures/probe": ("image", Path("figures/probe.png"))}


def test_only_the_adapter_is_kept(notebook: Notebook, record: RunRecord, tmp_path: Path) -> None:
    assert record.export is not None
    publish_export(notebook, "edit-0", record.export, tmp_path)
    assert notebook.kept == {"edit-0": ("adapter", tmp_path / "export/adapter")}
    assert notebook.final["export/agreement"] == 1.0
    other = Notebook()
    publish_export(other, "full-0", ExportRecord("full", None, "export/merged", 0.0, 1.0, 3), tmp_path)
    assert other.kept == {}
