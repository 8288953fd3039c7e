"""Float32 products of linear layers by oneDNN, where a model runs on a CPU.

torch gives them to MKL. On two AMD EPYC cores oneDNN took half of MKL's time for an output layer of 32,000 words and
the few rows that are asked there; 0.6 to 0.9 of it for the weights of blocks 320 and 512 wide once these are laid out
as it likes them. The weight's own gradient is left to MKL, which is faster there; bfloat16 goes to oneDNN anyway.

oneDNN keeps a kernel for each number of rows that it has met, 0.4 MB here. So it is for the output layer, for runs of
few rows and for traces, but not for all training: batches of many lengths would cost 100 MB for a tenth of the time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import mm_flop, register_flop_formula

WORK, LAID_OUT_WORK = 2**24, 2**22
"""Products of fewer multiplications are left to MKL."""
WIDTH = 64
"""So are weights with a narrower side."""
ROOM = 2**31
"""Bytes that weights which are laid out again may take beside the model's, those for gradients counted."""


AVAILABLE = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
"""Whether this build of torch has oneDNN; some do without."""


class OneDNN:
    """Faster linear layers for `model`, or a part of one, equal to rounding.

    With `lay_out` each weight that does not train is kept as oneDNN likes it from its first product on, once more for
    its gradients; it must not change. Where that needs more than `ROOM`, such weights are left to MKL.
    """

    def __init__(self, model: nn.Module, *, lay_out: bool = False) -> None:
        linears = [m for m in model.modules() if type(m) is nn.Linear and _suits(m)] if AVAILABLE else []
        frozen = [m for m in linears if lay_out and not m.weight.requires_grad]
        if 2 * sum(m.weight.nbytes for m in frozen) > ROOM:
            linears = [m for m in linears if m.weight.requires_grad]
        self._forwards = [_Forward(linear, linear in frozen) for linear in linears]

    @contextmanager
    def on(self) -> Iterator[None]:
        """The model with them inside the block."""
        replaced = [one for one in self._forwards if "forward" not in vars(one.linear)]
        for one in replaced:
            vars(one.linear)["forward"] = one
        try:
            yield
        finally:
            for one in replaced:
                del vars(one.linear)["forward"]


def _suits(linear: nn.Linear) -> bool:
    weight = linear.weight
    own = "forward" not in vars(linear)  # not accelerate's, which moves weights about
    return own and weight.device.type == "cpu" and weight.dtype == torch.float32 and min(weight.shape) >= WIDTH


class _Forward:
    """Stands in for the `forward` of a linear layer."""

    def __init__(self, linear: nn.Linear, lay_out: bool) -> None:
        self.linear = linear
        self.lay_out = lay_out
        self._laid_out: dict[bool, Tensor] = {}

    def __call__(self, input: Tensor) -> Tensor:
        weight, bias = self.linear.weight, self.linear.bias
        plain = torch.is_autocast_enabled("cpu") or input.dtype != torch.float32
        if plain or input.numel() * weight.shape[0] < (LAID_OUT_WORK if self.lay_out else WORK):
            return nn.Linear.forward(self.linear, input)
        if torch.is_grad_enabled():
            return _Linear.apply(input, weight, bias, self)
        return _product(input, self.weight(), bias)

    def weight(self, *, transposed: bool = False) -> Tensor:
        """The weight, as oneDNN likes it where that is kept."""
        weight = self.linear.weight.detach()
        if transposed:
            weight = weight.t()
        if not self.lay_out:
            return weight
        if transposed not in self._laid_out:
            self._laid_out[transposed] = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), None)
        return self._laid_out[transposed]


class _Linear(torch.autograd.Function):
    """A linear layer whose gradients are wanted, by `_product`."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, bias: Tensor | None, by: _Forward) -> Tensor:
        ctx.by = by
        ctx.save_for_backward(input if ctx.needs_input_grad[1] else None)
        return _product(input, by.weight(), bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (input,), asked, rows = ctx.saved_tensors, ctx.needs_input_grad, grad.flatten(0, -2)
        return (
            _product(grad, ctx.by.weight(transposed=True), None) if asked[0] else None,
            rows.t() @ input.flatten(0, -2) if asked[1] else None,
            rows.sum(0) if asked[2] else None,
            None,
        )


def _product(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(input, weight, bias, "none", [], "")


def _flops(input: Sequence[int], weight: Sequence[int], *_: object, **__: object) -> int:
    """Of inputs (..., in) and weights (out, in), given as shapes."""
    return mm_flop((math.prod(input[:-1]), input[-1]), (weight[1], weight[0]))


if AVAILABLE:
    register_flop_formula(torch.ops.mkldnn._linear_pointwise)(_flops)
