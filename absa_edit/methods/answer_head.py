"""A linear head that answers from the states of a block, in place of the blocks above it and the output layer."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import torch
from jaxtyping import Float
from torch import Tensor, nn

from absa_edit.data.prompts import Prompt
from absa_edit.errors import DataError
from absa_edit.model.block_runner import BlockRunner
from absa_edit.model.span_states import SpanStates
from absa_edit.progress import Progress
from absa_edit.records import Role


class Pooling(StrEnum):
    """Which states are read."""

    last = "last"
    """The one of the prompt's last token."""
    aspect = "aspect"
    """The mean over the aspect's tokens, as the question repeats it."""

    def span(self, prompt: Prompt) -> range:
        """The tokens of a prompt. Raises `DataError` where it has no such ones."""
        if self is Pooling.last:
            return range(len(prompt.ids) - 1, len(prompt.ids))
        positions = prompt.positions(Role.aspect_again)
        if not positions:
            raise DataError(
                f"example {prompt.example.id}: its prompt repeats no aspect, whose states would be read; take "
                "method.<name>.poolings=[last]"
            )
        return range(positions[0], positions[-1] + 1)


POOLINGS = tuple(Pooling)


class AnswerHead(nn.Module):
    """Scores of the labels from the pooled states behind a block; where it reads is saved with its weights."""

    place: Tensor
    """The block, and the pooling's number."""

    def __init__(self, labels: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(labels, width))
        self.bias = nn.Parameter(torch.zeros(labels))
        self.register_buffer("place", torch.zeros(2, dtype=torch.long))

    @property
    def layer(self) -> int:
        """The last block that is run."""
        return int(self.place[0])

    @property
    def pooling(self) -> Pooling:
        return POOLINGS[int(self.place[1])]

    @torch.no_grad()
    def scores(
        self, runner: BlockRunner, prompts: Sequence[Prompt], batch_tokens: int, progress: Progress, name: str
    ) -> Float[Tensor, "prompt label"]:
        """Those of each prompt, on the CPU; a softmax makes them probabilities."""
        states = SpanStates(runner, [p.ids for p in prompts], [[self.pooling.span(p)] for p in prompts])
        scores = torch.zeros(len(prompts), len(self.bias), dtype=torch.float64)
        batches = states.batches(batch_tokens)
        for batch in progress(batches, name, len(batches)):
            (pooled,) = states.means(batch, [self.layer])
            scores[batch] = (pooled[:, 0].float() @ self.weight.T + self.bias).cpu().double()
        return scores
