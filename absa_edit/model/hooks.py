"""Read or replace a module's output or input inside a `with` block; no hook survives it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from absa_edit.model.architectures import output_width


@contextmanager
def edited(module: nn.Module, edit: Callable[[Tensor], Tensor | None]) -> Iterator[None]:
    """Replace `module`'s hidden-state output by `edit(output)` inside the block; None keeps it as it is."""

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
        return hidden.new_zeros(1).expand(*hidden.shape[:-1], self.width)


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
    """A list that receives `module`'s hidden-state output of each call inside the block."""
    outputs: list[Tensor] = []
    with edited(module, lambda hidden: outputs.append(hidden)):
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
