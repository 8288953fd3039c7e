"""States that no edit changes, computed once: what enters the first block that trains, and what trunks are seen by."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from absa_edit.lm.attention import Heads, Keys
from absa_edit.lm.course import Course, States
from absa_edit.lm.decoder import Decoder
from absa_edit.lm.forest import PADDING, TRUNK, Batch, Forest
from absa_edit.progress import Progress, silent


class FrozenStates:
    """The states that enter block `start` at every node of a forest.

    With `trunks_known` also the keys and values of stem and trunks from that block on, for methods that change nothing
    before the first token that a sequence has for itself. In memory, or memory-mapped where they need more than `gib`.
    Right as long as nothing below `start` (nor, then, any trunk) changes: the caller drops them with the model. `below`
    are such states at a lower block, to go on from.
    """

    @torch.no_grad()
    def __init__(
        self,
        decoder: Decoder,
        forest: Forest,
        start: int,
        *,
        gib: float,
        trunks_known: bool = False,
        below: FrozenStates | None = None,
        batch_tokens: int = 4096,
        progress: Progress = silent,
    ) -> None:
        self.start = start
        self.trunks_known = trunks_known
        self._room = gib * 2**30
        self._kept: dict[str, Tensor] = {}
        reach = decoder.reach(int(forest.position.max()) + 1)
        batches = [forest.batch(indices, decoder.device) for indices in forest.buckets(batch_tokens)]
        for batch in progress(batches, "frozen states", len(batches)):
            ids = torch.from_numpy(forest.ids).to(decoder.device)[batch.own.node]
            frame = decoder.begin(decoder.embed(ids), batch.own.position)
            self._fill(Course(decoder, reach, batch, frame), forest, below)

    def states(self, batch: Batch) -> States:
        """What enters block `start`."""
        return self._taken("states", batch.own.node)

    def known(self, layer: int, batch: Batch) -> tuple[Keys, Keys]:
        """Keys and values of stem and trunks in a block."""
        key, value = (self._taken(f"{layer} {what}", batch.known.node).transpose(1, 2) for what in ("key", "value"))
        return key, value

    def _fill(self, course: Course, forest: Forest, below: FrozenStates | None) -> None:
        batch, decoder = course.batch, course.decoder
        hidden = below.states(batch) if below else course.frame.hidden
        for layer in range(below.start if below else 0, self.start):
            hidden = course.block(layer, hidden)
        self._keep("states", hidden, batch, batch.own.tree != PADDING, len(forest.ids))
        for layer in range(self.start, decoder.layers if self.trunks_known else self.start):
            found: list[Heads] = []
            hidden = course.block(layer, hidden, found)
            for what, states in (("key", found[0].key), ("value", found[0].value)):
                in_trunk = batch.own.branch == TRUNK
                self._keep(f"{layer} {what}", states.transpose(1, 2), batch, in_trunk, forest.trunks)

    def _keep(self, name: str, states: Tensor, batch: Batch, which: Tensor, nodes: int) -> None:
        """Put the states of some slots where `name` has those of all nodes."""
        if name not in self._kept:
            self._kept[name] = self._space((nodes, *states.shape[2:]), states.dtype)
        self._kept[name][batch.own.node[which].cpu()] = states[which].cpu()

    def _taken(self, name: str, node: Tensor) -> Tensor:
        return self._kept[name][node.cpu()].to(node.device)

    def _space(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        count = math.prod(shape)
        self._room -= count * dtype.itemsize
        if self._room >= 0:
            return torch.empty(shape, dtype=dtype)
        with tempfile.TemporaryDirectory(prefix="absa_edit-frozen-") as folder:  # the mapping outlives its name
            file = str(Path(folder) / "states")
            return torch.from_file(file, shared=True, size=count, dtype=dtype).view(shape)
