"""The model's own forward with a representation edit put in by a hook: what the package's own runs are held against."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from absa_edit.adapt import Adapted
from absa_edit.data.prompts import Prompt
from absa_edit.lm.hooks import edited
from absa_edit.records import Part, Site


@contextmanager
def hooked(adapted: Adapted, prompts: Sequence[Prompt]) -> Iterator[None]:
    """Inside the block, runs of `adapted.model` over the rows of `prompts` are edited."""
    positions = adapted.positions(prompts)
    with ExitStack() as stack:
        for layer, edit in adapted.representation.by_layer().items() if adapted.representation else ():
            block = adapted.decoder.module(Site(layer, Part.block))
            stack.enter_context(edited(block, lambda hidden, edit=edit: _put(hidden, positions, edit)))
        yield


def _put(hidden: Tensor, positions: list[int] | None, edit: nn.Module) -> Tensor:
    assert positions is not None and len(positions) == len(hidden)
    where = (torch.arange(len(hidden)), torch.tensor(positions))
    return hidden.index_put(where, edit(hidden[where]))
