"""The benchmark of estimates: estimates are near, and another plan is seen to be another."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import absa_edit
from absa_edit.localizers.settings import Shape
from absa_edit.model.precision import has_bfloat16_units
from absa_edit.records import Part


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "benchmarks"))
    import bench_estimate

    monkeypatch.setattr(bench_estimate, "DRAWS", 20)
    return bench_estimate


@pytest.mark.slow
def test_estimates_are_held_against_the_exact_engine(bench: ModuleType) -> None:
    data = absa_edit.read("laptop-sample", tests=[]).train
    model, parts = absa_edit.Model("reviewlm", device="cpu"), [Part.attn, Part.mlp]
    found = bench.compared(model, data, parts, examples=6, samples=4)
    rounded = {"bfloat16"} if has_bfloat16_units(model.lm.model.device) else set()
    assert set(found["times_faster"]) == {"attribution", "auto"} | rounded
    assert found["counts"]["exact"]["seen"] == 6 and 0 < found["compared"] <= found["counts"]["exact"]["kept"]
    assert 0 < found["cells_run"] < 2 * 7 * 12
    assert found["agreement"]["auto"]["rank_correlation"]["value"] > 0.5

    trace = model.trace(data, examples=12, engine="attribution")
    upside_down = replace(trace, restored=np.flip(trace.restored, -1))
    for shape in Shape:
        assert bench.same_plan(trace, trace, model, shape) == 1.0
        assert bench.same_plan(trace, upside_down, model, shape) < 0.5

    same, other = bench.cells_apart(trace, trace), bench.cells_apart(trace, upside_down)
    assert 0 < same["large"] < same["cells"] == other["cells"]
    assert same["rank_of_large"] == same["rank_of_others"] == pytest.approx(1) and other["rank_of_large"] < 0.9
    assert 0 < same["rank_of_exact_halves"] < 1
