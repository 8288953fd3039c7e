"""States that no edit changes, computed once: what enters the first trained block, and keys and values of prefixes."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from absa_edit.model.attention import Heads, Keys
from absa_edit.model.block_runner import BlockRunner
from absa_edit.model.prefix_tree import PADDING, SHARED, Batch, PrefixTree
from absa_edit.model.shared_prefix import keys_before
from absa_edit.model.tree_forward import States, TreeForward
from absa_edit.progress import Progress, silent
from absa_edit.storage import atomic, readable


class ActivationCache:
    """The states that enter block `start` at every node of a tree.

    With `prefixes_known` also the keys and values of root and shared prefixes from that block on, for methods that
    change nothing before the first token that a sequence has for itself. In memory, or memory-mapped where they need
    more than `gib`. Right as long as nothing below `start` (nor, then, any shared prefix) changes: the caller drops
    them with the model. `below` are such states at a lower block, to go on from.
    """

    @torch.no_grad()
    def __init__(
        self,
        runner: BlockRunner,
        tree: PrefixTree,
        start: int,
        *,
        gib: float,
        prefixes_known: bool = False,
        below: ActivationCache | None = None,
        batch_tokens: int = 4096,
        progress: Progress = silent,
        store: Path | None = None,
    ) -> None:
        self.start = start
        self.prefixes_known = prefixes_known
        self._room = gib * 2**30
        self._kept: dict[str, Tensor] = {}
        if store and (stored := _stored(store)) is not None:
            self._kept["states"] = stored
            return
        reach = runner.reach(int(tree.position.max()) + 1)
        before = keys_before(runner, tree, reach, start)
        batches = [tree.batch(indices, runner.device) for indices in tree.buckets(batch_tokens)]
        for batch in progress(batches, "frozen states", len(batches)):
            ids = torch.from_numpy(tree.ids).to(runner.device)[batch.computed.node]
            block_inputs = runner.begin(runner.embed(ids), batch.computed.position)
            self._fill(TreeForward(runner, reach, batch, block_inputs, before=before), tree, below)
        if store and not prefixes_known:
            _store(self._kept["states"], store)

    def states(self, batch: Batch) -> States:
        """What enters block `start`."""
        return self._taken("states", batch.computed.node)

    def known(self, layer: int, batch: Batch) -> tuple[Keys, Keys]:
        """Keys and values of root and shared prefixes in a block."""
        key, value = (self._taken(f"{layer} {what}", batch.known.node).transpose(1, 2) for what in ("key", "value"))
        return key, value

    def _fill(self, forward: TreeForward, tree: PrefixTree, below: ActivationCache | None) -> None:
        batch, runner = forward.batch, forward.runner
        hidden = below.states(batch) if below else forward.block_inputs.hidden
        for layer in range(below.start if below else 0, self.start):
            hidden = forward.block(layer, hidden)
        self._keep("states", hidden, batch, batch.computed.subtree != PADDING, len(tree.ids))
        for layer in range(self.start, runner.layers if self.prefixes_known else self.start):
            attention_inputs: list[Heads] = []
            hidden = forward.block(layer, hidden, attention_inputs)
            for what, states in (("key", attention_inputs[0].key), ("value", attention_inputs[0].value)):
                in_prefix = batch.computed.suffix == SHARED
                self._keep(f"{layer} {what}", states.transpose(1, 2), batch, in_prefix, tree.shared_prefixes)

    def _keep(self, name: str, states: Tensor, batch: Batch, which: Tensor, nodes: int) -> None:
        """Put the states of some slots where `name` has those of all nodes."""
        if name not in self._kept:
            self._kept[name] = self._space((nodes, *states.shape[2:]), states.dtype)
        self._kept[name][batch.computed.node[which].cpu()] = states[which].cpu()

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


def _store(states: Tensor, folder: Path) -> None:
    """Keep the states in a file that others can map; its presence says that it is whole."""
    with atomic(folder / "states.safetensors") as temporary:
        save_file({"states": states}, temporary)


def _stored(folder: Path) -> Tensor | None:
    """The states that lie in a folder, mapped into memory; None where there are none."""
    path = folder / "states.safetensors"
    if not path.is_file():
        return None
    with readable(path):
        return load_file(path)["states"]
