"""What a checkpoint keeps, and when it counts as none."""

from __future__ import annotations

import json

import pytest
import torch

from absa_edit.errors import RecordError
from absa_edit.training import checkpoint as module
from absa_edit.training.checkpoint import Checkpoint, Progressed


def some(seed: int) -> tuple[dict[str, torch.Tensor], torch.optim.Optimizer]:
    """Two trained parameters after two steps."""
    torch.manual_seed(seed)
    trained = {"a.weight": torch.randn(3, 2, requires_grad=True), "b": torch.randn(4, requires_grad=True)}
    optimizer = torch.optim.AdamW(trained.values(), lr=0.1)
    for _ in range(2):
        sum(p.square().sum() for p in trained.values()).backward()
        optimizer.step()
        optimizer.zero_grad()
    return trained, optimizer


def test_everything_comes_back(tmp_path) -> None:
    trained, optimizer = some(0)
    best = {n: t.detach() + 1 for n, t in trained.items()}
    progressed = Progressed(2, 10, 1.5, 99, 4, 1, 0.5, [{"epoch": 1.0, "loss": 0.25}, {"epoch": 2.0, "loss": 0.125}])
    Checkpoint(tmp_path / "c", "k").save(progressed, trained, best, optimizer)
    other, other_optimizer = some(1)
    rng = torch.get_rng_state()
    found = Checkpoint(tmp_path / "c", "k").load(other, other_optimizer)
    assert torch.equal(torch.get_rng_state(), rng), "an epoch draws from its own seed"
    assert found is not None and found[0] == progressed
    assert all(torch.equal(other[n], t) for n, t in trained.items())
    assert all(torch.equal(found[1][n], t) for n, t in best.items())
    states = zip(optimizer.state_dict()["state"].values(), other_optimizer.state_dict()["state"].values(), strict=True)
    assert all(torch.equal(a[k], b[k]) for a, b in states for k in a)


def test_none_without_a_file_or_with_another_key(tmp_path) -> None:
    trained, optimizer = some(0)
    assert Checkpoint(tmp_path, "k").load(trained, optimizer) is None
    Checkpoint(tmp_path, "k").save(Progressed(epoch=1), trained, trained, optimizer)
    other, other_optimizer = some(1)
    before = {n: t.detach().clone() for n, t in other.items()}
    assert Checkpoint(tmp_path, "other").load(other, other_optimizer) is None
    assert all(torch.equal(before[n], t) for n, t in other.items())


def test_one_that_is_cut_says_what_to_do(tmp_path) -> None:
    trained, optimizer = some(0)
    kept = Checkpoint(tmp_path / "c", "k")
    kept.save(Progressed(epoch=1), trained, trained, optimizer)
    for file in ("epoch1-k.safetensors", "state.json"):
        path = tmp_path / "c" / file
        path.write_bytes(path.read_bytes()[:20])
        with pytest.raises(RecordError, match=f"^{tmp_path}/c/state.json, .*; delete it, and it is made again"):
            kept.load(trained, optimizer)


def test_only_the_last_epoch_is_kept(tmp_path) -> None:
    trained, optimizer = some(0)
    kept = Checkpoint(tmp_path / "c", "k")
    for epoch in (1, 2, 3):
        kept.save(Progressed(epoch=epoch), trained, trained, optimizer)
    assert len(list((tmp_path / "c").glob("*.safetensors"))) == 1
    assert len(list((tmp_path / "c").iterdir())) == 2
    kept.remove()
    kept.remove()
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("key", ["k", "other"])
def test_cut_off_while_saving_leaves_the_earlier_one_whole(tmp_path, monkeypatch, key) -> None:
    trained, optimizer = some(0)
    Checkpoint(tmp_path, "k").save(Progressed(epoch=1), trained, trained, optimizer)

    def power_cut(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(module, "write_json", power_cut)
    other, other_optimizer = some(1)
    with pytest.raises(OSError, match="no space"):
        Checkpoint(tmp_path, key).save(Progressed(epoch=1 if key == "other" else 2), other, other, other_optimizer)
    fresh, fresh_optimizer = some(2)
    found = Checkpoint(tmp_path, "k").load(fresh, fresh_optimizer)
    assert found is not None and found[0].epoch == 1
    assert all(torch.equal(fresh[n], t) for n, t in trained.items())


def test_files_hold_no_pickle(tmp_path) -> None:
    trained, optimizer = some(0)
    Checkpoint(tmp_path, "k").save(Progressed(epoch=1), trained, trained, optimizer)
    assert {p.suffix for p in tmp_path.iterdir()} == {".safetensors", ".json"}
    assert json.loads((tmp_path / "state.json").read_text())["epoch"] == 1
