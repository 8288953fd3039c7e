"""Weights laid out as oneDNN likes them, for runs without gradients in float32 on a CPU.

torch gives float32 products on a CPU to MKL. On two AMD EPYC cores oneDNN took 0.85 of MKL's time for those of blocks
512 wide, and as long for few rows (`torch.mm` against this, 420 to 8192 rows). bfloat16 goes to oneDNN anyway.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import mm_flop, register_flop_formula

ROWS, WIDTH = 48, 64
"""Products with fewer rows, or weights with a narrower side, are left to MKL."""
ROOM = 2**31
"""Bytes that the weights laid out again may take beside the model's; where they need more, all stays as it is."""


AVAILABLE = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
"""Whether this build of torch has oneDNN; some do without."""


@contextmanager
def packed(model: nn.Module) -> Iterator[None]:
    """The model with faster linear layers inside the block, equal to rounding; its weights must not change there."""
    linears = [m for m in model.modules() if type(m) is nn.Linear and _suits(m)]
    if not AVAILABLE or sum(m.weight.nbytes for m in linears) > ROOM:
        linears = []
    for linear in linears:
        vars(linear)["forward"] = _Packed(linear)
    try:
        yield
    finally:
        for linear in linears:
            del vars(linear)["forward"]


def _suits(linear: nn.Linear) -> bool:
    weight = linear.weight
    own = "forward" not in vars(linear)  # not accelerate's, which moves weights about, nor packed already
    return own and weight.device.type == "cpu" and weight.dtype == torch.float32 and min(weight.shape) >= WIDTH


class _Packed:
    """Stands in for the `forward` of a linear layer."""

    def __init__(self, linear: nn.Linear) -> None:
        self.linear = linear
        self.weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), 1024)

    def __call__(self, input: Tensor) -> Tensor:
        plain = torch.is_grad_enabled() or torch.is_autocast_enabled("cpu") or input.dtype != torch.float32
        if plain or input.numel() < ROWS * self.linear.in_features:
            return nn.Linear.forward(self.linear, input)
        return torch.ops.mkldnn._linear_pointwise(input, self.weight, self.linear.bias, "none", [], "")


def _flops(input: Sequence[int], weight: Sequence[int], *_: object, **__: object) -> int:
    """Of inputs (..., in) and weights (out, in), given as shapes."""
    return mm_flop((math.prod(input[:-1]), input[-1]), (weight[1], weight[0]))


if AVAILABLE:
    register_flop_formula(torch.ops.mkldnn._linear_pointwise)(_flops)
