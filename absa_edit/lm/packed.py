"""Frozen weights laid out as oneDNN likes them, for float32 on a CPU.

torch gives float32 products on a CPU to MKL. On two AMD EPYC cores oneDNN took 0.85 to 0.9 of MKL's time for those of
blocks 512 and 320 wide with 256 rows or more, and 0.6 to 0.85 with 64 to 128. bfloat16 goes to oneDNN anyway.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

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
    """The model with faster linear layers inside the block, equal to rounding.

    Those whose weights train stay as they are; the others' weights must not change there.
    """
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
    frozen = not any(p.requires_grad for p in linear.parameters())
    return (
        own and frozen and weight.device.type == "cpu" and weight.dtype == torch.float32 and min(weight.shape) >= WIDTH
    )


class _Packed:
    """Stands in for the `forward` of a linear layer. Weights are laid out when they are first needed."""

    def __init__(self, linear: nn.Linear) -> None:
        self.linear = linear

    def __call__(self, input: Tensor) -> Tensor:
        plain = torch.is_autocast_enabled("cpu") or input.dtype != torch.float32
        if plain or input.numel() < ROWS * self.linear.in_features:
            return nn.Linear.forward(self.linear, input)
        return _Product.apply(input, self)

    @cached_property
    def weight(self) -> Tensor:
        """For products with the layer's inputs."""
        return _laid_out(self.linear.weight)

    @cached_property
    def transposed(self) -> Tensor:
        """For products with the gradients of its outputs."""
        return _laid_out(self.linear.weight.T.contiguous())


class _Product(torch.autograd.Function):
    """Of inputs with a layer's weight; no gradient goes to the weight."""

    @staticmethod
    def forward(context: Any, input: Tensor, layer: _Packed) -> Tensor:
        context.layer = layer
        return _linear(input, layer.weight, layer.linear.bias)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _linear(gradient, context.layer.transposed), None


def _laid_out(weight: Tensor) -> Tensor:
    return torch.ops.mkldnn._reorder_linear_weight(weight.detach(), 1024)


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(input, weight, bias, "none", [], "")


def _flops(input: Sequence[int], weight: Sequence[int], *_: object, **__: object) -> int:
    """Of inputs (..., in) and weights (out, in), given as shapes."""
    return mm_flop((math.prod(input[:-1]), input[-1]), (weight[1], weight[0]))


if AVAILABLE:
    register_flop_formula(torch.ops.mkldnn._linear_pointwise)(_flops)
