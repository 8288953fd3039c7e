"""Linear layers by oneDNN: the same to rounding, gradients too, and nothing left behind."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from absa_edit.model import onednn_linear as module
from absa_edit.model.onednn_linear import OneDNN


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(128, 320), nn.SiLU(), nn.Linear(320, 96, bias=False), nn.Linear(96, 8))


@pytest.fixture
def states() -> torch.Tensor:
    return torch.randn(3, 200, 128, generator=torch.Generator().manual_seed(1))


def onednn_calls(model: nn.Module, states: torch.Tensor) -> int:
    with torch.profiler.profile() as profile:
        model(states)
    return sum(e.count for e in profile.key_averages() if "_linear_pointwise" in e.key)


LAYOUTS = pytest.mark.parametrize("lay_out", [False, True])


@LAYOUTS
@torch.inference_mode()
def test_answers_are_the_same_to_rounding(model, states, lay_out) -> None:
    plain = model(states)
    with OneDNN(model, lay_out=lay_out).on():
        assert onednn_calls(model, states) == 2  # the third is narrow
        torch.testing.assert_close(model(states), plain, atol=1e-5, rtol=1e-5)
        turned = states.transpose(0, 1)  # not contiguous
        assert onednn_calls(model, turned) == 2
        torch.testing.assert_close(model(turned), plain.transpose(0, 1), atol=1e-5, rtol=1e-5)
        assert onednn_calls(model, states[0, :4]) == 0


@LAYOUTS
@pytest.mark.parametrize("trained", ["nothing", "weights", "all"])
def test_gradients_are_the_same_to_rounding(model, states, lay_out, trained) -> None:
    model.requires_grad_(trained != "nothing")
    wanted = [p for p in model.parameters() if p.requires_grad]
    if trained != "weights":
        wanted.append(states.requires_grad_())
    expected = torch.autograd.grad(model(states).square().sum(), wanted)
    with OneDNN(model, lay_out=lay_out).on():
        assert onednn_calls(model, states) == 2
        with torch.profiler.profile() as profile:
            found = torch.autograd.grad(model(states).square().sum(), wanted)
        calls = sum(e.count for e in profile.key_averages() if "_linear_pointwise" in e.key)
        assert calls == (3 if trained == "weights" else 4)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-4)


def test_trained_weights_may_change_where_others_are_laid_out(model, states) -> None:
    model[0].requires_grad_(False)
    with OneDNN(model, lay_out=True).on():
        model(states)
        with torch.no_grad():
            model[2].weight.mul_(2)
        found = model(states)
    torch.testing.assert_close(found, model(states), atol=1e-5, rtol=1e-5)


@LAYOUTS
def test_nothing_is_left_behind(model, states, lay_out) -> None:
    with torch.no_grad():
        plain = model(states)
        with pytest.raises(KeyError), OneDNN(model, lay_out=lay_out).on():
            with OneDNN(model).on():
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
    with OneDNN(model, lay_out=True).on():
        assert torch.equal(model(states), plain) and onednn_calls(model, states) == 0


@pytest.fixture(params=["autocast", "model"])
def rounded(request: pytest.FixtureRequest, model, states):
    """A frozen model and states whose products are in bfloat16."""
    model.requires_grad_(False)
    if request.param == "autocast":
        with torch.autocast("cpu", torch.bfloat16):
            yield model, states
    else:
        yield model.to(torch.bfloat16), states.bfloat16()


@pytest.mark.skipif(not module.BFLOAT16, reason="oneDNN has no bfloat16 on this machine")
def test_frozen_weights_are_rounded_and_laid_out_once(rounded) -> None:
    model, states = rounded
    states.requires_grad_()
    plain = model(states)
    (expected,) = torch.autograd.grad(plain.float().sum(), states)
    with OneDNN(model, lay_out=True).on():
        with torch.no_grad():
            assert onednn_calls(model, states) == 2
        found = model(states)
        (gradient,) = torch.autograd.grad(found.float().sum(), states)
        model[0].weight.mul_(2)  # is not looked at again
        with torch.no_grad():
            torch.testing.assert_close(model(states), plain, atol=1e-2, rtol=1e-2)
        assert torch.equal(model(states), found) == (model[0].weight.dtype == torch.float32)
    assert found.dtype == plain.dtype == torch.bfloat16 and gradient.dtype == states.dtype
    torch.testing.assert_close(found, plain, atol=1e-2, rtol=1e-2)
    torch.testing.assert_close(gradient, expected, atol=5e-2, rtol=5e-2)


def test_bfloat16_is_torchs_where_nothing_is_laid_out(rounded, monkeypatch) -> None:
    model, states = rounded
    with OneDNN(model).on():
        assert onednn_calls(model, states) == 0
    monkeypatch.setattr(module, "BFLOAT16", False)
    with OneDNN(model, lay_out=True).on():
        assert onednn_calls(model, states) == 0
    monkeypatch.undo()
    with OneDNN(model.requires_grad_(), lay_out=True).on():
        assert onednn_calls(model, states) == 0


@pytest.mark.parametrize("trains", [False, True])
def test_autocast_rounds_frozen_weights_once_for_all_steps(model, states, trains) -> None:
    model.requires_grad_(trains)
    states.requires_grad_()

    def step() -> tuple[torch.Tensor, torch.Tensor]:
        with torch.autocast("cpu", torch.bfloat16):
            found = model(states)
        return found, torch.autograd.grad(found.float().square().sum(), states)[0]

    expected = step()
    with OneDNN(model).on():
        found = step()
        assert all(map(torch.equal, found, expected))
        with torch.no_grad():
            model[0].weight.mul_(2)
        assert all(map(torch.equal, step(), expected)) != trains


def test_unlike_dtypes_are_torchs_to_refuse(model, states) -> None:
    for one, other in ((model, states.bfloat16()), (copy.deepcopy(model).bfloat16(), states)):
        with OneDNN(one.requires_grad_(False), lay_out=True).on(), pytest.raises(RuntimeError, match="dtype"):
            one(other)
    with (
        OneDNN(model, lay_out=True).on(),
        torch.autocast("cpu", torch.bfloat16),
        pytest.raises(RuntimeError, match="dtype"),
    ):
        model(states.double())


@pytest.mark.parametrize("autocast", [False, True])
def test_gradients_follow_answers_of_inference(model, states, autocast) -> None:
    products = OneDNN(model.requires_grad_(False), lay_out=True)
    states.requires_grad_()
    with products.on(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        with torch.inference_mode():
            first = model(states).float()
        (found,) = torch.autograd.grad(model(states).float().sum(), states)
    (expected,) = torch.autograd.grad(model(states).sum(), states)
    torch.testing.assert_close(first.clone(), model(states).detach(), atol=2e-2, rtol=2e-2)
    torch.testing.assert_close(found, expected, atol=5e-2, rtol=5e-2)


@LAYOUTS
def test_products_are_counted(model, states, lay_out) -> None:
    with OneDNN(model, lay_out=lay_out).on(), FlopCounterMode(display=False) as counter:
        model(states.requires_grad_()).sum().backward()
    assert counter.get_total_flops() == 3 * 2 * states.shape[:2].numel() * (128 * 320 + 320 * 96 + 96 * 8)


def test_a_model_without_room_is_left_alone(model, states, monkeypatch) -> None:
    model.requires_grad_(False)
    need = 2 * 4 * (128 * 320 + 320 * 96)  # both ways
    for room, calls in ((need, 2), (need - 1, 0)):
        monkeypatch.setattr(module, "ROOM", room)
        with OneDNN(model, lay_out=True).on():
            assert onednn_calls(model, states) == calls


def test_what_is_laid_out_serves_again(model, states) -> None:
    model.requires_grad_(False)
    products = OneDNN(model, lay_out=True)
    with products.on():
        plain = model(states)
    model[0].weight.mul_(2)
    with products.on():
        assert torch.equal(model(states), plain)
    assert not torch.allclose(model(states), plain)
