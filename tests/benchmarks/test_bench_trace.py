"""The benchmark measures what it says: other tools give our numbers, and our FLOPs are at the counted floor."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
from rich.console import Console
from torch.utils.flop_counter import FlopCounterMode

from absa_edit.records import Part

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import bench_trace as bench

    monkeypatch.setattr(bench, "VOCABULARY", 500)
    monkeypatch.setattr(bench, "SAMPLES", 2)
    return bench


def test_other_tools_give_our_numbers(bench: ModuleType) -> None:
    found = bench.measured_peers(bench.workload(3, 14, 2), bench.GRIDS["all"], Console(quiet=True), rounds=1)
    assert {"hook_loop", "rome"} <= set(found)
    for tool in found.values():
        assert tool["gap"] < 1e-5
        assert tool["all"] == pytest.approx(tool["block"] + tool["attn"] + tool["mlp"])


@pytest.mark.parametrize("grid", ["attn", "all", pytest.param("head", marks=pytest.mark.slow)])
def test_our_matrix_products_are_at_the_floor(bench: ModuleType, grid: str) -> None:
    work, parts = bench.workload(6, 24, 2), bench.GRIDS.get(grid, (Part.head,))
    with FlopCounterMode(display=False) as counter:
        bench.exact(work, parts)
    assert 0.97 < counter.get_total_flops() / bench.floor_of(work, parts) < 1.1


@pytest.mark.parametrize("shape", ["smollm2_135m", "gemma3_270m"])
def test_the_floor_of_shared_keys_and_wide_heads_is_theirs_too(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch, shape: str
) -> None:
    import shapes

    monkeypatch.setitem(shapes.SHAPES[shape][1], "vocab_size", 500)
    work, parts = bench.workload(4, 16, 2, shape), (Part.attn, Part.mlp)
    with FlopCounterMode(display=False) as counter:
        bench.exact(work, parts)
    assert 0.97 < counter.get_total_flops() / bench.floor_of(work, parts) < 1.1


def test_the_floor_of_roles_is_theirs_too(bench: ModuleType) -> None:
    work, parts = bench.workload(6, 24, 2), bench.GRIDS["all"]
    units = [[9, 10, 12], [11], [20, 21, 22], [23]]
    with FlopCounterMode(display=False) as counter:
        bench.exact(work, parts, units=units)
    floor = bench.floor_flops(work.model.config, 24, 2, work.corrupted[0], parts, units)
    assert 0.97 < counter.get_total_flops() / floor < 1.1
