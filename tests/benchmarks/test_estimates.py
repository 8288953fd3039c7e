"""Estimates held against the exact traces of a benchmark's runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from absa_edit.cli import main

TEXT = """
models: [reviewlm]
train: [sample]
tests: [laptop-sample]
seeds: [0]
sizes: [40]
arms: {zero_shot: , edit: }
settings: [data.limit_test=8, model.device=cpu, trace.model=base, trace.examples=6, trace.samples=2, trace.filter=false,
  trace.grids=0, fit.epochs=1, score.resamples=20]
"""


@pytest.mark.slow
def test_the_examples_of_a_run_are_estimated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "benchmarks"))
    import estimates

    monkeypatch.setattr(estimates, "DRAWS", 20)
    file = tmp_path / "benchmarks" / "small.yaml"
    file.parent.mkdir()
    file.write_text(TEXT, encoding="utf-8")
    estimates.main([str(file)], tmp_path)
    assert not (tmp_path / "benchmarks" / "results" / "estimates.json").exists(), "nothing is traced yet"
    main(["benchmark", str(file)], root=tmp_path)
    estimates.main([str(file)], tmp_path)
    (result,) = json.loads((tmp_path / "benchmarks" / "results" / "estimates.json").read_text()).values()
    assert result["n"] == 6
    for engine in ("attribution", "auto"):
        assert result[engine]["rank_correlation"]["value"] > 0.5
        assert result[engine]["rank_correlation"]["n"] == 6
