"""Packed linear layers: the same to rounding, where gradients flow the same, and nothing left behind."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from absa_edit.lm import packed as module
from absa_edit.lm.packed import ROWS, packed


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(128, 320), nn.SiLU(), nn.Linear(320, 96, bias=False), nn.Linear(96, 8))


@pytest.fixture
def states() -> torch.Tensor:
    return torch.randn(3, ROWS, 128, generator=torch.Generator().manual_seed(1))


def onednn_calls(model: nn.Module, states: torch.Tensor) -> int:
    with torch.profiler.profile() as profile:
        model(states)
    return sum(e.count for e in profile.key_averages() if "_linear_pointwise" in e.key)


@torch.inference_mode()
def test_answers_are_the_same_to_rounding(model, states) -> None:
    plain = model(states)
    with packed(model):
        assert onednn_calls(model, states) == 2  # the third is narrow
        torch.testing.assert_close(model(states), plain, atol=1e-5, rtol=1e-5)
        late = states.transpose(0, 1)[:, 1:]  # not contiguous
        torch.testing.assert_close(model(late), plain.transpose(0, 1)[:, 1:], atol=1e-5, rtol=1e-5)
        assert onednn_calls(model, states[0, : ROWS - 1]) == 0


def test_nothing_is_left_behind(model, states) -> None:
    with torch.no_grad():
        plain = model(states)
        with pytest.raises(KeyError), packed(model):
            with packed(model):
                assert onednn_calls(model, states) == 2
            assert onednn_calls(model, states) == 2
            raise KeyError
        model[0].weight.mul_(2)
        assert onednn_calls(model, states) == 0
        assert not torch.allclose(model(states), plain)
    assert not any("forward" in vars(layer) for layer in model)


@torch.inference_mode()
def test_a_torch_without_onednn_does_without(model, states, monkeypatch) -> None:
    monkeypatch.setattr(module, "AVAILABLE", False)
    plain = model(states)
    with packed(model):
        assert torch.equal(model(states), plain) and onednn_calls(model, states) == 0


def test_gradients_and_other_dtypes_are_torchs(model, states) -> None:
    states = states.requires_grad_()
    (expected,) = torch.autograd.grad(model(states).sum(), states)
    with packed(model):
        (found,) = torch.autograd.grad(model(states).sum(), states)
        assert torch.equal(found, expected)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            assert onednn_calls(model, states) == 0
    with packed(model.to(torch.bfloat16)), torch.no_grad():
        assert onednn_calls(model, states.bfloat16()) == 0


@torch.inference_mode()
def test_products_are_counted(model, states) -> None:
    with packed(model), FlopCounterMode(display=False) as counter:
        model(states)
    assert counter.get_total_flops() == 2 * 3 * ROWS * (128 * 320 + 320 * 96 + 96 * 8)


@torch.inference_mode()
def test_a_model_without_room_stays_as_it_is(model, states, monkeypatch) -> None:
    monkeypatch.setattr(module, "ROOM", 4 * (128 * 320 + 320 * 96) - 1)
    with packed(model):
        assert onednn_calls(model, states) == 0
