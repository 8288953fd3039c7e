"""The benchmark of estimates: each engine is what it says, and another plan is seen to be another."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import absa_edit
from absa_edit.config import Shape
from absa_edit.records import Part


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "scripts"))
    import bench_estimate

    monkeypatch.setattr(bench_estimate, "DRAWS", 20)
    return bench_estimate


def test_estimates_are_held_against_the_exact_engine(bench: ModuleType) -> None:
    data = absa_edit.read("laptop-sample", tests=[]).train
    model, parts = absa_edit.Model("reviewlm", device="cpu"), [Part.attn, Part.mlp]
    found = bench.compared(model, data, parts, examples=12)
    assert set(found["times_faster"]) == {"attribution", "auto"}
    assert found["counts"]["seen"] == 12 and 0 < found["cells_run"] < 2 * 7 * 12
    assert found["agreement"]["auto"]["rank_correlation"]["value"] > 0.5

    exact = model.trace(data, examples=12, parts=parts)
    upside_down = replace(exact, restored=np.flip(exact.restored, -1))
    for shape in Shape:
        assert bench.same_plan(exact, exact, model, shape) == 1.0
        assert bench.same_plan(exact, upside_down, model, shape) < 0.5
