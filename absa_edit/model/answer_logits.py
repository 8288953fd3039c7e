"""What a model answers: logits where answers are predicted, with nothing computed that these do not read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from absa_edit.model.activation_cache import ActivationCache
from absa_edit.model.block_runner import BlockRunner
from absa_edit.model.onednn_linear import OneDNN
from absa_edit.model.prefix_tree import PADDING, Batch, Ids, PrefixTree, grow, grow_after
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


@dataclass(frozen=True)
class StateEdit:
    """A change of the residual stream that leaves some blocks, at some tokens of each prompt."""

    by_layer: Mapping[int, nn.Module]
    at: Sequence[Sequence[int]]
    """Positions by prompt, as many in each prompt, ascending."""
    first: int = 0
    """The change is made at so many tokens from the first on, too: the same of all prompts that share them."""


class AnswerLogits:
    """Prompts, each with an answer, laid out as subtrees to be asked about in batches.

    All prompts begin with the same tokens, `preamble` of them known to be of one text; with `apart` their keys and
    values are computed once, as the model is when it is first asked, and without gradients, unless an edit acts there.
    `prefix` gives keys and values that stand before all tokens, as they are now: asked each time, and trained if they
    have gradients.
    """

    def __init__(
        self,
        runner: BlockRunner,
        prompts: Sequence[Ids],
        answers: Sequence[Ids],
        *,
        edits: Sequence[StateEdit] = (),
        prefix: Callable[[], PrefixKeys] = tuple,
        preamble: int = 0,
        apart: bool = False,
    ) -> None:
        self.runner = runner
        self.edits = edits
        self.prefix = prefix
        ahead = prefix()
        moved = ahead[0][0].shape[2] if ahead else 0
        self.targets = answers
        self.last = [len(prompt) - 1 for prompt in prompts]
        prefix_limits = [min((last, *(p for e in edits for p in e.at[i][:1]))) for i, last in enumerate(self.last)]
        apart = apart and not ahead and not any(edit.first for edit in edits)
        sequences = [[*prompt, *answer[:-1]] for prompt, answer in zip(prompts, answers, strict=True)]
        tree = grow_after(preamble, sequences, prefix_limits) if apart else grow(sequences, prefix_limits, preamble)
        self.tree: PrefixTree = replace(tree, position=tree.position + moved)
        self.last = [last + moved for last in self.last]
        self.products = OneDNN(runner.model.get_output_embeddings())
        self.ids = torch.from_numpy(self.tree.ids).to(runner.device)
        self.reach = runner.reach(max(map(len, sequences), default=1) + moved)

    @property
    def before(self) -> PrefixKeys:
        """Keys and values before the tree's tokens."""
        return self.prefix() or self._of_preamble

    @cached_property
    def _of_preamble(self) -> PrefixKeys:
        return keys_before(self.runner, self.tree, self.reach)

    def asked(self, indices: Sequence[int]) -> Asked:
        """The answer tokens of some prompts, prompt by prompt."""
        rows = [
            (place, target, self.last[i] + number)
            for place, i in enumerate(indices)
            for number, target in enumerate(self.targets[i])
        ]
        return Asked(*torch.tensor(rows, device=self.runner.device).view(-1, 3).unbind(1))

    def places(self, indices: Sequence[int], layer: int) -> Int[Tensor, " token"]:
        """Where the answer tokens of some prompts stand in the row of states that a block's modules are given.

        The last block's output projections are given these alone.
        """
        answer_tokens = self.asked(indices)
        if layer == self.runner.layers - 1:
            return torch.arange(len(answer_tokens.target), device=self.runner.device)
        batch = self.tree.batch(indices, self.runner.device)
        return answer_tokens.position + batch.shift[answer_tokens.sequence]

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
        known = frozen.known if frozen and prefixes_known else None
        forward = TreeForward(runner, self.reach, batch, block_inputs, known, self.before)
        changes = [self._change(edit, indices, batch) for edit in self.edits]
        start, hidden = 0, block_inputs.hidden
        if frozen:
            start, hidden = frozen.start, _changed(frozen.start - 1, frozen.states(batch), changes)
        for layer in range(start, runner.layers - 1):
            hidden = _changed(layer, forward.block(layer, hidden), changes)
        answer_tokens = self.asked(indices)
        slots = answer_tokens.position + batch.shift[answer_tokens.sequence]
        if start == runner.layers:
            return hidden[0, slots]
        leaving = forward.last_block(hidden, slots)
        for change in changes:
            if runner.layers - 1 in change.by_layer:
                here = (answer_tokens.position[:, None] == change.at[answer_tokens.sequence]).any(1)
                leaving = leaving.index_put((here,), change.by_layer[runner.layers - 1](leaving[here]))
        return leaving

    def _change(self, edit: StateEdit, indices: Sequence[int], batch: Batch) -> _Change:
        """An edit in a batch of some prompts: at its tokens in suffixes, and at the first ones wherever they lie."""
        at = torch.tensor([[*edit.at[i]] for i in indices], dtype=torch.long, device=self.runner.device)
        slots = (at + batch.shift[:, None]).flatten()
        if edit.first:
            computed = batch.computed
            early = (computed.position[0] < edit.first) & (computed.subtree[0] != PADDING)
            slots = torch.cat((early.nonzero()[:, 0], slots))
        return _Change(edit.by_layer, at, slots)


@dataclass(frozen=True)
class _Change:
    """A `StateEdit` in a batch."""

    by_layer: Mapping[int, nn.Module]
    at: Int[Tensor, "sequence place"]
    """Positions in the batch's prompts, without the first ones."""
    slots: Int[Tensor, " slot"]
    """Where all of its tokens are."""


def _changed(layer: int, hidden: States, changes: Sequence[_Change]) -> States:
    """The states that leave a block, after what changes them there."""
    for change in changes:
        if layer in change.by_layer:
            where = (torch.zeros_like(change.slots), change.slots)
            hidden = hidden.index_put(where, change.by_layer[layer](hidden[where]))
    return hidden
