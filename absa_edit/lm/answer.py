"""What a model answers: logits where answers are predicted, with nothing computed that these do not read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from absa_edit.lm.course import Course, States
from absa_edit.lm.decoder import Decoder
from absa_edit.lm.forest import Batch, Forest, Ids, grow
from absa_edit.lm.frozen import FrozenStates
from absa_edit.lm.onednn import OneDNN


@dataclass(frozen=True)
class Asked:
    """Tokens of answers: whose they are, which they are, where they are predicted."""

    sequence: Int[Tensor, " token"]
    """Place of the token's sequence among those asked about."""
    target: Int[Tensor, " token"]
    position: Int[Tensor, " token"]

    @property
    def share(self) -> Float[Tensor, " token"]:
        """One over the number of tokens of the same answer."""
        return 1 / self.sequence.bincount()[self.sequence]


class Answers:
    """Prompts, each with an answer, laid out as trees to be asked about in batches.

    `edits` change the residual stream that leaves their blocks, at position `at[i]` of prompt `i`.
    """

    def __init__(
        self,
        decoder: Decoder,
        prompts: Sequence[Ids],
        answers: Sequence[Ids],
        *,
        edits: Mapping[int, nn.Module] | None = None,
        at: Sequence[int] | None = None,
    ) -> None:
        self.decoder = decoder
        self.edits = edits or {}
        self.at = at
        self.targets = answers
        self.last = [len(prompt) - 1 for prompt in prompts]
        own = self.last if at is None else list(map(min, self.last, at))
        sequences = [[*prompt, *answer[:-1]] for prompt, answer in zip(prompts, answers, strict=True)]
        self.forest: Forest = grow(sequences, own)
        self.products = OneDNN(decoder.model.get_output_embeddings())
        self.ids = torch.from_numpy(self.forest.ids).to(decoder.device)
        self.reach = decoder.reach(max(map(len, sequences), default=1))

    def asked(self, indices: Sequence[int]) -> Asked:
        """The answer tokens of some prompts, prompt by prompt."""
        rows = [
            (place, target, self.last[i] + number)
            for place, i in enumerate(indices)
            for number, target in enumerate(self.targets[i])
        ]
        return Asked(*torch.tensor(rows, device=self.decoder.device).view(-1, 3).unbind(1))

    def logits(self, indices: Sequence[int], frozen: FrozenStates | None = None) -> Float[Tensor, "token vocabulary"]:
        """Logits at the answer tokens of some prompts; `frozen` says what of their run is known."""
        leaving = self._leaving(indices, frozen)
        with self.products.on():
            return self.decoder.logits(leaving)

    def _leaving(self, indices: Sequence[int], frozen: FrozenStates | None) -> Float[Tensor, "token hidden"]:
        """The states that leave the last block at the answer tokens."""
        decoder = self.decoder
        trunks_known = frozen is not None and frozen.trunks_known
        batch = self.forest.batch(indices, decoder.device, trunks_known=trunks_known)
        with torch.no_grad() if frozen else nullcontext():
            frame = decoder.begin(decoder.embed(self.ids[batch.own.node]), batch.own.position)
        course = Course(decoder, self.reach, batch, frame, frozen.known if frozen and trunks_known else None)
        at = None if self.at is None else torch.tensor([self.at[i] for i in indices], device=decoder.device)
        start, hidden = 0, frame.hidden
        if frozen:
            start, hidden = frozen.start, frozen.states(batch)
            hidden = self._edit(start - 1, hidden, batch, at)
        for layer in range(start, decoder.layers - 1):
            hidden = self._edit(layer, course.block(layer, hidden), batch, at)
        asked = self.asked(indices)
        slots = asked.position + batch.shift[asked.sequence]
        if start == decoder.layers:
            return hidden[0, slots]
        leaving = course.last_block(hidden, slots)
        if at is not None and decoder.layers - 1 in self.edits:
            here = asked.position == at[asked.sequence]
            leaving = leaving.index_put((here,), self.edits[decoder.layers - 1](leaving[here]))
        return leaving

    def _edit(self, layer: int, hidden: States, batch: Batch, at: Int[Tensor, " sequence"] | None) -> States:
        if at is None or layer not in self.edits:
            return hidden
        slots = at + batch.shift
        where = (torch.zeros_like(slots), slots)
        return hidden.index_put(where, self.edits[layer](hidden[where]))
