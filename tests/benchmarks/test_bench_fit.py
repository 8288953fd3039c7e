"""The training benchmark: every way trains, and what it counts is what it says."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
import torch
from rich.console import Console

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import fits

    return fits


def test_rows_of_other_tools_hold_prompt_and_answer(fits: ModuleType) -> None:
    prompts, labels = fits.prompts_of(fits.Job("edit", examples=16))
    batch = fits.padded(prompts, labels)
    for row, prompt in enumerate(prompts):
        real = batch["attention_mask"][row].bool()
        answer = labels[prompt.example.label]
        assert batch["input_ids"][row][real].tolist() == [*prompt.ids, *answer]
        asked = batch["labels"][row] != -100
        assert batch["labels"][row][asked].tolist() == list(answer)
        assert asked.nonzero().flatten().tolist() == list(range(len(prompt.ids), len(prompt.ids) + len(answer)))


def test_other_tools_get_our_batches(fits: ModuleType) -> None:
    prompts, _ = fits.prompts_of(fits.Job("edit", examples=40))
    first, second = (fits.batches_of(prompts, epoch) for epoch in (1, 2))
    assert sorted(i for batch in first for i in batch) == list(range(40)) and first != second
    epochs = fits._Epochs([first, second])
    assert (list(epochs), list(epochs)) == (first, second)


def test_longer_prompts_are_longer(fits: ModuleType) -> None:
    lengths = [sum(len(p.ids) for p in fits.prompts_of(fits.Job("edit", examples=8, tokens=t))[0]) for t in (45, 90)]
    assert 8 * 45 <= lengths[1] - lengths[0] <= 8 * 46


@pytest.mark.parametrize("way", ["edit", "lora", "full"])
def test_time_outside_the_blocks_is_a_part_of_a_step(
    fits: ModuleType, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    import shapes
    from profiles import outside_blocks

    monkeypatch.setitem(shapes.SHAPES["llama"][1], "vocab_size", 8192)
    found = outside_blocks(fits.Job(way, layers=3, examples=32, epochs=2, threads=1))
    assert 0 < found["outside"] < found["seconds"]
    assert found["share"] == pytest.approx(found["outside"] / found["seconds"])


@pytest.mark.slow
def test_all_ways_train_in_turns(fits: ModuleType) -> None:
    import bench_fit

    jobs = [fits.Job(way, layers=3, examples=32, epochs=2, threads=1) for way in (*fits.OURS, *fits.THEIRS)]
    found = bench_fit.measured(jobs, Console(quiet=True))
    assert set(found) == {*fits.OURS, *fits.THEIRS}
    assert all(one["seconds"] > 0 and one["bytes"] > 0 for one in found.values())
    flops = {way: found[way]["flops"] for way in fits.OURS}
    assert flops["representation"] < flops["edit"] < flops["lora"] < flops["full"]


def test_a_7b_step_is_counted_without_values(fits: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    import meta

    monkeypatch.setattr(meta, "SHAPE_7B", {**meta.SHAPE_7B, "num_hidden_layers": 12, "hidden_size": 512})
    monkeypatch.setattr(meta, "EDITED", range(4, 8))
    assert all(p.device == torch.device("meta") for p in meta.model_7b().parameters())
    found = meta.counted()
    assert found["edit"]["flops"] < found["lora"]["flops"] < found["lora, padded rows"]["flops"]
    assert found["inference"]["bytes"] < found["edit"]["bytes"] < found["lora"]["bytes"] < found["full"]["bytes"]
    # forward and back through everything, but for the gradients of frozen weights, is twice the forward
    assert 1.9 < found["lora"]["flops"] / found["inference"]["flops"] < 2.4
