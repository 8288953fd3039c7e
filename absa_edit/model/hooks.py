"""Read or replace a module's output or input inside a `with` block; no hook survives it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from absa_edit.model.architectures import output_width


@contextmanager
def edited(module: nn.Module, edit: Callable[[Tensor], Tensor | None]) -> Iterator[None]:
    """Replace `module`'s hidden-state output by `edit(output)` inside the block; None keeps it as it is.

    The model may write into what `edit` returns (Falcon adds the attention to the MLP's output in place).
    """

    def hook(_module: nn.Module, _args: object, output: Tensor | tuple[Any, ...]) -> object:
        if isinstance(output, tuple):  # attention returns (hidden, weights or None); blocks and projections a tensor
            changed = edit(output[0])
            return None if changed is None else (changed, *output[1:])
        return edit(output)

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


class _Silent(nn.Module):
    """Gives zeros in place of a linear module, and computes nothing."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, hidden: Tensor) -> Tensor:
        """Zeros [..., width] that may be written to, in the dtype of products (under autocast not that of `hidden`)."""
        device = hidden.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
        return hidden.new_zeros(*hidden.shape[:-1], self.width, dtype=dtype)


@contextmanager
def silent(root: nn.Module, linears: Sequence[str]) -> Iterator[None]:
    """Linear modules of `root`, by dotted path, give zeros inside the block: their output is not going to be used."""
    real = {path: root.get_submodule(path) for path in linears}
    try:
        for path, module in real.items():
            root.set_submodule(path, _Silent(output_width(module)[1]))
        yield
    finally:
        for path, module in real.items():
            root.set_submodule(path, module)


@contextmanager
def recorded(module: nn.Module) -> Iterator[list[Tensor]]:
    """A list that receives `module`'s hidden-state output of each call inside the block; the model has a copy of it."""
    outputs: list[Tensor] = []

    def keep(hidden: Tensor) -> Tensor:
        outputs.append(hidden)
        return hidden.clone()

    with edited(module, keep):
        yield outputs


@contextmanager
def entering(module: nn.Module, edit: Callable[[Tensor], Tensor | None] | None = None) -> Iterator[list[Tensor]]:
    """A list that receives `module`'s input of each call inside the block; `edit` may replace it before it is used."""
    inputs: list[Tensor] = []

    def hook(_module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        inputs.append(args[0])
        changed = edit(args[0]) if edit else None
        return None if changed is None else (changed, *args[1:])

    handle = module.register_forward_pre_hook(hook)
    try:
        yield inputs
    finally:
        handle.remove()
