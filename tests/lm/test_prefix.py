"""Cached states against the run that they stand for."""

from __future__ import annotations

import copy
import gc
from pathlib import Path

import pytest
import torch

from absa_edit.lm.decoder import Decoder
from absa_edit.lm.prefix import FrozenPrefix


@torch.no_grad()
@pytest.mark.parametrize("start", [1, 2])
def test_states_equal_the_run_of_each_row_alone(tiny, prompts, start) -> None:
    decoder, ids = Decoder(tiny.model), [p.ids for p in prompts]
    prefix = FrozenPrefix(decoder, ids, start, gib=1.0, batch_tokens=100)
    for i, row in enumerate(ids):
        frame = decoder.begin(decoder.embed(torch.tensor([row])))
        expected = decoder.run(frame.hidden, 0, start, frame)
        torch.testing.assert_close(prefix.batch([i], decoder.device), expected, atol=1e-5, rtol=1e-5)


def test_on_disk_is_the_same_as_in_memory(small, prompts) -> None:
    decoder, ids = Decoder(small.model), [p.ids for p in prompts]
    memory, disk = (FrozenPrefix(decoder, ids, 2, gib=gib) for gib in (1.0, 0.0))
    everything = list(range(len(ids)))
    assert torch.equal(memory.batch(everything, decoder.device), disk.batch(everything, decoder.device))


def test_batches_are_padded_on_the_right_with_zeros(small, prompts) -> None:
    decoder, ids = Decoder(small.model), [p.ids for p in prompts]
    prefix = FrozenPrefix(decoder, ids, 1, gib=1.0)
    batch = prefix.batch([3, 0, 3], decoder.device)
    longest = max(len(ids[3]), len(ids[0]))
    assert batch.shape == (3, longest, 32)
    assert torch.equal(batch[0], batch[2])
    for row, i in zip(batch, (3, 0, 3), strict=True):
        assert torch.equal(row[: len(ids[i])], prefix.batch([i], decoder.device)[0])
        assert not row[len(ids[i]) :].any()


def test_keeps_the_models_dtype(small, prompts) -> None:
    decoder = Decoder(copy.deepcopy(small.model).bfloat16())
    assert FrozenPrefix(decoder, [p.ids for p in prompts], 1, gib=0.0).states.dtype is torch.bfloat16


def test_nothing_stays_on_disk(small, prompts, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    prefix = FrozenPrefix(Decoder(small.model), [p.ids for p in prompts], 1, gib=0.0)
    assert prefix.states.isfinite().all()
    del prefix
    gc.collect()
    assert not list(Path(tmp_path).iterdir())
