"""Products of linear layers by oneDNN, where a model runs on a CPU.

torch gives float32 to MKL. oneDNN is faster for a large output layer and the few rows that are asked there, and for
the weights of blocks once these are laid out as it likes them. The weight's own gradient is left to MKL, which is
faster there. bfloat16 is oneDNN's by itself, but for each product a weight is laid out anew and, under autocast,
rounded anew if it does not train: here it is rounded once for all training steps, which for an output layer of many
words is most of what a step takes outside the blocks.

oneDNN keeps a kernel for each number of rows that it has met. So in float32 it is for the output layer, for runs of few
rows and for traces, but not for all training: batches of many lengths would cost much memory for little time. The
figures are in docs/performance.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import mm_flop, register_flop_formula

from absa_edit.model.precision import has_bfloat16_units

WORK, LAID_OUT_WORK = 2**24, 2**22
"""Float32 products of fewer multiplications are left to MKL."""
WIDTH = 64
"""So are weights with a narrower side."""
ROOM = 2**31
"""Bytes that weights which are laid out again may take beside the model's, at most: twice what they are."""


AVAILABLE = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
"""Whether this build of torch has oneDNN; some do without."""
BFLOAT16 = AVAILABLE and has_bfloat16_units(torch.device("cpu"))
"""Whether it is good at bfloat16 on this machine."""


class OneDNN:
    """Faster linear layers for `model`, or a part of one, equal to rounding.

    With `lay_out` each weight that does not train is kept as oneDNN likes it, in the product's dtype, from its first
    product on, once more for gradients; it must not change. Where that needs more than `ROOM` such weights are left to
    torch. Without `lay_out` bfloat16 is torch's, but a weight that does not train and is rounded by autocast where
    gradients are wanted is kept rounded, to the same bits; it must not change either.
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
        replaced = [forward for forward in self._forwards if "forward" not in vars(forward.linear)]
        for forward in replaced:
            vars(forward.linear)["forward"] = forward
        try:
            yield
        finally:
            for forward in replaced:
                del vars(forward.linear)["forward"]


def _suits(linear: nn.Linear) -> bool:
    weight = linear.weight
    unpatched = "forward" not in vars(linear)  # not accelerate's, which moves weights about
    return (
        unpatched
        and weight.device.type == "cpu"
        and weight.dtype in (torch.float32, torch.bfloat16)
        and min(weight.shape) >= WIDTH
    )


class _Forward:
    """Stands in for the `forward` of a linear layer."""

    def __init__(self, linear: nn.Linear, lay_out: bool) -> None:
        self.linear = linear
        self.lay_out = lay_out
        self._laid_out: dict[tuple[torch.dtype, bool], Tensor] = {}

    def __call__(self, input: Tensor) -> Tensor:
        dtype = self._dtype(input)
        if dtype is None:
            return nn.Linear.forward(self.linear, input)
        input, bias = input.to(dtype), None if self.linear.bias is None else self.linear.bias.to(dtype)
        if not torch.is_grad_enabled():
            return _product(input, self.weight(dtype), bias)
        if dtype == torch.bfloat16:
            return nn.functional.linear(input, self.rounded, bias)
        return cast(Tensor, _Linear.apply(input, self.linear.weight, bias, self))  # type: ignore[no-untyped-call]

    def _dtype(self, input: Tensor) -> torch.dtype | None:
        """Of the product; None where it is left to torch."""
        weight, autocast = self.linear.weight, torch.is_autocast_enabled("cpu")
        dtype = torch.get_autocast_dtype("cpu") if autocast else weight.dtype
        if dtype == torch.bfloat16:
            castable = input.dtype == dtype or (autocast and input.dtype == torch.float32)
            kept = self.lay_out and BFLOAT16
            rounds_for_steps = autocast and torch.is_grad_enabled() and not weight.requires_grad
            return dtype if castable and (kept or rounds_for_steps) else None
        least = LAID_OUT_WORK if self.lay_out else WORK
        same = input.dtype == weight.dtype == dtype
        return dtype if same and input.numel() * weight.shape[0] >= least else None

    @cached_property
    def rounded(self) -> Tensor:
        """The weight in bfloat16."""
        return self.linear.weight.detach().bfloat16()

    def weight(self, dtype: torch.dtype, *, transposed: bool = False) -> Tensor:
        """The weight in that dtype, as oneDNN likes it where that is kept."""
        weight = self.linear.weight.detach()
        if transposed:
            weight = weight.t()
        if not self.lay_out:
            return weight
        if (dtype, transposed) not in self._laid_out:
            plain = weight.to(dtype).contiguous()
            self._laid_out[dtype, transposed] = torch.ops.mkldnn._reorder_linear_weight(plain, None)
        return self._laid_out[dtype, transposed]


class _Linear(torch.autograd.Function):
    """A float32 linear layer whose gradients are wanted, by `_product`."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, bias: Tensor | None, by: _Forward) -> Tensor:
        ctx.by = by
        ctx.save_for_backward(input if ctx.needs_input_grad[1] else None)
        return _product(input, by.weight(input.dtype), bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (input,), needs_grad, rows = ctx.saved_tensors, ctx.needs_input_grad, grad.flatten(0, -2)
        return (
            _product(grad, ctx.by.weight(grad.dtype, transposed=True), None) if needs_grad[0] else None,
            rows.t() @ input.flatten(0, -2) if needs_grad[1] else None,
            rows.sum(0) if needs_grad[2] else None,
            None,
        )


def _product(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return cast(Tensor, torch.ops.mkldnn._linear_pointwise(input, weight, bias, "none", [], ""))


def _flops(input: Sequence[int], weight: Sequence[int], *_: object, **__: object) -> int:
    """Of inputs (..., in) and weights (out, in), given as shapes."""
    return mm_flop((math.prod(input[:-1]), input[-1]), (weight[1], weight[0]))


if AVAILABLE:
    register_flop_formula(torch.ops.mkldnn._linear_pointwise)(_flops)
