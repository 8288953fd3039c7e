"""Mean states of stretches of prompts as they leave some blocks; nothing above or behind these is run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from absa_edit.model.block_runner import BlockRunner
from absa_edit.model.prefix_tree import Ids, grow
from absa_edit.model.tree_forward import TreeForward


class SpanStates:
    """Prompts with stretches of tokens, as many in each; what prompts share is computed once."""

    def __init__(self, runner: BlockRunner, prompts: Sequence[Ids], spans: Sequence[Sequence[range]]) -> None:
        self.runner = runner
        self.spans = spans
        sequences = [ids[: max(span.stop for span in its)] for ids, its in zip(prompts, spans, strict=True)]
        self.tree = grow(sequences, [min(span.start for span in its) for its in spans])
        self.ids = torch.from_numpy(self.tree.ids).to(runner.device)
        self.reach = runner.reach(max(map(len, sequences), default=1))

    def batches(self, tokens: int) -> list[list[int]]:
        """The numbers of all prompts, in batches of at most so many tokens."""
        return list(self.tree.buckets(tokens))

    @torch.no_grad()
    def means(self, indices: Sequence[int], layers: Sequence[int]) -> Iterator[Float[Tensor, "prompt span hidden"]]:
        """The mean states of some prompts' stretches behind each of some blocks, which are given in ascending order."""
        batch = self.tree.batch(indices, self.runner.device)
        block_inputs = self.runner.begin(self.runner.embed(self.ids[batch.computed.node]), batch.computed.position)
        forward, hidden = TreeForward(self.runner, self.reach, batch, block_inputs), block_inputs.hidden
        shift = batch.shift.tolist()
        for layer in range(layers[-1] + 1):
            hidden = forward.block(layer, hidden)
            if layer in layers:
                means = [
                    hidden[0, span.start + first : span.stop + first].mean(0)
                    for i, first in zip(indices, shift, strict=True)
                    for span in self.spans[i]
                ]
                yield torch.stack(means).unflatten(0, (len(indices), -1))
