"""What a model answers: logits where answers are predicted, with nothing computed that these do not read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from absa_edit.model.activation_cache import ActivationCache
from absa_edit.model.block_runner import BlockRunner
from absa_edit.model.onednn_linear import OneDNN
from absa_edit.model.prefix_tree import Batch, Ids, PrefixTree, grow, grow_after
from absa_edit.model.shared_prefix import PrefixKeys, keys_before
from absa_edit.model.tree_forward import States, TreeForward


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


class AnswerLogits:
    """Prompts, each with an answer, laid out as subtrees to be asked about in batches.

    `edits` change the residual stream that leaves their blocks, at position `at[i]` of prompt `i`. All prompts begin
    with the same tokens, `preamble` of them known to be of one text; with `apart` their keys and values are computed
    once, as the model is when it is first asked, and without gradients.
    """

    def __init__(
        self,
        runner: BlockRunner,
        prompts: Sequence[Ids],
        answers: Sequence[Ids],
        *,
        edits: Mapping[int, nn.Module] | None = None,
        at: Sequence[int] | None = None,
        preamble: int = 0,
        apart: bool = False,
    ) -> None:
        self.runner = runner
        self.edits = edits or {}
        self.at = at
        self.targets = answers
        self.last = [len(prompt) - 1 for prompt in prompts]
        prefix_limits = self.last if at is None else list(map(min, self.last, at))
        sequences = [[*prompt, *answer[:-1]] for prompt, answer in zip(prompts, answers, strict=True)]
        self.tree: PrefixTree = (
            grow_after(preamble, sequences, prefix_limits) if apart else grow(sequences, prefix_limits, preamble)
        )
        self.products = OneDNN(runner.model.get_output_embeddings())
        self.ids = torch.from_numpy(self.tree.ids).to(runner.device)
        self.reach = runner.reach(max(map(len, sequences), default=1))

    @cached_property
    def before(self) -> PrefixKeys:
        """Keys and values of the tokens before the tree's."""
        return keys_before(self.runner, self.tree, self.reach)

    def asked(self, indices: Sequence[int]) -> Asked:
        """The answer tokens of some prompts, prompt by prompt."""
        rows = [
            (place, target, self.last[i] + number)
            for place, i in enumerate(indices)
            for number, target in enumerate(self.targets[i])
        ]
        return Asked(*torch.tensor(rows, device=self.runner.device).view(-1, 3).unbind(1))

    def logits(
        self,
        indices: Sequence[int],
        frozen: ActivationCache | None = None,
        words: Sequence[int] | None = None,
    ) -> Float[Tensor, "token vocabulary"]:
        """Logits at the answer tokens of some prompts; `frozen` says what of their run is known.

        Of the tokens `words` only, where given: of the output layer no other rows are read.
        """
        leaving = self._leaving(indices, frozen)
        with self.products.on():
            return self.runner.logits(leaving, words)

    def _leaving(self, indices: Sequence[int], frozen: ActivationCache | None) -> Float[Tensor, "token hidden"]:
        """The states that leave the last block at the answer tokens."""
        runner = self.runner
        prefixes_known = frozen is not None and frozen.prefixes_known
        batch = self.tree.batch(indices, runner.device, prefixes_known=prefixes_known)
        with torch.no_grad() if frozen else nullcontext():
            block_inputs = runner.begin(runner.embed(self.ids[batch.computed.node]), batch.computed.position)
        forward = TreeForward(
            runner, self.reach, batch, block_inputs, frozen.known if frozen and prefixes_known else None, self.before
        )
        at = None if self.at is None else torch.tensor([self.at[i] for i in indices], device=runner.device)
        start, hidden = 0, block_inputs.hidden
        if frozen:
            start, hidden = frozen.start, frozen.states(batch)
            hidden = self._edit(start - 1, hidden, batch, at)
        for layer in range(start, runner.layers - 1):
            hidden = self._edit(layer, forward.block(layer, hidden), batch, at)
        answer_tokens = self.asked(indices)
        slots = answer_tokens.position + batch.shift[answer_tokens.sequence]
        if start == runner.layers:
            return hidden[0, slots]
        leaving = forward.last_block(hidden, slots)
        if at is not None and runner.layers - 1 in self.edits:
            here = answer_tokens.position == at[answer_tokens.sequence]
            leaving = leaving.index_put((here,), self.edits[runner.layers - 1](leaving[here]))
        return leaving

    def _edit(self, layer: int, hidden: States, batch: Batch, at: Int[Tensor, " sequence"] | None) -> States:
        if at is None or layer not in self.edits:
            return hidden
        slots = at + batch.shift
        where = (torch.zeros_like(slots), slots)
        return hidden.index_put(where, self.edits[layer](hidden[where]))
