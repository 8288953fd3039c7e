"""Read or replace a module's output inside a `with` block; no hook survives it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


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


@contextmanager
def recorded(module: nn.Module) -> Iterator[list[Tensor]]:
    """A list that receives `module`'s hidden-state output of each call inside the block."""
    outputs: list[Tensor] = []
    with edited(module, lambda hidden: outputs.append(hidden)):
        yield outputs
