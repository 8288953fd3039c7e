"""What runs share by content: a sweep over learning rates traces once, and nothing depends on the cache."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from runs import execute, settings

from absa_edit.data.settings import DataSettings
from absa_edit.localizers.settings import LocateSettings
from absa_edit.methods.low_rank_edit import Edit
from absa_edit.model.tree_forward import TreeForward
from absa_edit.pipeline.stages import trace as trace_stage
from absa_edit.settings import Settings, Stage
from absa_edit.storage import load_trace


def run_of(tmp_path: Path, name: str, lr: float) -> Settings:
    return settings(
        tmp_path,
        name=name,
        data=DataSettings(name="laptop-sample", limit_train=30, limit_test=8),
        method={"edit": Edit(lr=lr)},
        stages=[Stage.trace, Stage.locate, Stage.methods],
    )


def test_a_sweep_over_learning_rates_traces_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, one, _ = execute(run_of(tmp_path, "first", 1e-3))
    monkeypatch.setattr(trace_stage, "traced", Mock(side_effect=AssertionError("it was traced before")))
    second, other, _ = execute(run_of(tmp_path, "second", 3e-3))
    assert first.folder != second.folder and other.plan == one.plan
    traces = [load_trace(run.folder / "trace", run.trace_key()) for run in (first, second)]
    assert traces[0] and traces[1]
    np.testing.assert_array_equal(traces[0].restored, traces[1].restored)
    assert other.methods["edit"].lr == 3e-3 and other.methods["edit"].fit != one.methods["edit"].fit
    shutil.rmtree(tmp_path / "cache")
    third, again, _ = execute(run_of(tmp_path, "second", 3e-3))
    assert third.folder == second.folder and again.methods == other.methods, "a run's own folder is whole without it"


def test_states_of_the_base_model_are_computed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The states below the edit on development and test data; the second run computes those of training alone."""
    blocks = []
    block = TreeForward.block
    monkeypatch.setattr(TreeForward, "block", lambda self, *given: blocks.append(given[0]) or block(self, *given))
    _, one, _ = execute(run_of(tmp_path, "first", 1e-3))
    start, count = min(one.plan.layers()), len(blocks)  # type: ignore[union-attr]
    blocks.clear()
    states = list((tmp_path / "cache" / "states").rglob("states.safetensors"))
    assert len(states) == (2 if start else 0)
    _, other, _ = execute(run_of(tmp_path, "second", 1e-3))
    assert other.methods["edit"].scores == one.methods["edit"].scores
    assert len(blocks) < count or not start


def test_other_settings_share_nothing(tmp_path: Path) -> None:
    first, *_ = execute(run_of(tmp_path, "first", 1e-3))
    changed = run_of(tmp_path, "second", 1e-3)
    changed.trace.samples = 2
    second, *_ = execute(changed)
    assert first.trace_key() != second.trace_key()
    assert len(list((tmp_path / "cache" / "trace").iterdir())) == 2


def test_a_run_without_the_stage_takes_no_trace_from_elsewhere(tmp_path: Path) -> None:
    """Else what a run says would depend on what the cache happens to hold."""
    execute(run_of(tmp_path, "first", 1e-3))
    manual = LocateSettings(kind="manual", layers=[4])
    _, record, _ = execute(replace(run_of(tmp_path, "second", 1e-3), locate=manual, stages=[Stage.locate]))
    assert record.trace is None and record.plan is not None
