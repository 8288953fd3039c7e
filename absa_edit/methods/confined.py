"""Adapters that change single heads: each reads its head's inputs of the output projection, and no others."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn


def mask_to_heads(down: nn.Parameter, blocks: Sequence[tuple[int, slice]]) -> int:
    """Keep an adapter's A (rank x inputs) at 0 outside of `blocks`; returns the number of entries kept there.

    Each block is a number of rows, dealt from the top, and the inputs that they read. What they read starts as an
    adapter of those inputs alone would; a block of all inputs is left as it is. The others get no gradient, so that
    no optimiser moves them, and the product B A is exactly 0 for the inputs that no block reads.
    """
    free = torch.zeros_like(down, dtype=torch.bool)
    first = 0
    for rows, inputs in blocks:
        free[first : first + rows, inputs] = True
        first += rows
    if free.all():
        return 0
    with torch.no_grad():
        # PEFT draws A uniformly up to 1 / sqrt(inputs): here the inputs are those that a row reads.
        down.mul_(math.sqrt(down.shape[1]) / free.sum(1, keepdim=True).sqrt()).mul_(free)
    down.register_hook(lambda gradient: gradient * free)
    return int((~free).sum())
