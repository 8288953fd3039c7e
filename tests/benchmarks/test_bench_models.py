"""The benchmark of models: its arms, and the file and page that are made of finished runs."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest
from runs import execute, small_run

from absa_edit.methods.low_rank_edit import Edit
from absa_edit.methods.zero_shot import ZeroShot
from absa_edit.settings import Stage


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "benchmarks"))
    import bench_models

    monkeypatch.setattr(bench_models, "ROOT", tmp_path)
    for name, path in (("RUNS", "outputs"), ("RESULTS", "results/models.json"), ("PAGE", "docs/models.md")):
        monkeypatch.setattr(bench_models, name, tmp_path / path)
    monkeypatch.setattr(bench_models, "DRAWS", 20)
    (tmp_path / "docs").mkdir()
    return bench_models


def test_an_arm_is_a_command_that_differs_by_model_seed_and_methods(bench: ModuleType) -> None:
    a, b = bench.overrides("reviewlm", 0, ["edit"]), bench.overrides("gemma3_270m_q4", 1, ["edit", "full"])
    assert [x for x in a if x not in b] == ["model=reviewlm", "seed=0", "method=[edit]"]
    assert [x for x in b if x not in a] == ["model=gemma3_270m_q4", "seed=1", "method=[edit,full]"]


@pytest.mark.slow
def test_what_is_done_is_collected(bench: ModuleType, tmp_path: Path) -> None:
    stages = [Stage.trace, Stage.locate, Stage.methods]
    methods = {"zero_shot": ZeroShot(), "edit": Edit(lr=2e-3)}
    runs = [execute(small_run(tmp_path / "outputs", seed=s, method=methods, stages=stages))[1] for s in (0, 1)]
    bench.collect()
    (group,) = json.loads((tmp_path / "results" / "models.json").read_text())["groups"]
    assert (group["model"], group["seeds"], group["weights"]) == ("reviewlm", [0, 1], "as published")
    line = next(line for line in group["scores"] if line["method"] == "edit" and line["is_own_test"])
    test = line["test"]
    mean = sum(run.methods["edit"].scores[test].accuracy.value for run in runs) / 2
    assert line["score"]["accuracy"]["value"] == pytest.approx(mean)
    assert [run["trace"]["peak"]["layer"] for run in group["runs"]] == [run.trace.peak.layer for run in runs]
    page = (tmp_path / "docs" / "models.md").read_text()
    assert f"{100 * mean:.1f} [" in page and "| zero_shot |" in page and "- Seed 1: base model traced" in page
