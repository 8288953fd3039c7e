"""Token sequences as trees: what several of them begin with is there, and is computed, once.

The prompts of one sentence differ in the aspect at their end and in nothing before it; all prompts begin with the same
instruction. A batch is one long row: the stem that all sequences begin with, then for each tree its trunk and the
branch of each sequence. A branch sees the stem, its trunk and itself, and its tokens stand at the positions that they
have in their own sequence; so every state is the one of that sequence alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

Ids = Sequence[int]

TRUNK = 0
"""Branch number of slots that are in no branch; others are counted from 1."""
STEM, PADDING = -2, -1
"""Tree numbers of slots that are in no tree; padding is in no branch either."""


Span = tuple[int, int, Sequence[int]]
"""Tree, branch and nodes of tokens that lie side by side."""


@dataclass(frozen=True)
class Slots:
    """Places of tokens, all in one row."""

    node: Int[Tensor, "1 slot"]
    position: Int[Tensor, "1 slot"]
    tree: Int[Tensor, "1 slot"]
    branch: Int[Tensor, "1 slot"]


@dataclass(frozen=True)
class Batch:
    """Some sequences of a forest: the stem, then `groups` of equally many slots that do not see each other.

    A group a tree; or a single one of branches, where stem and trunks are known.
    """

    known: Slots
    """Stem and trunks that nothing changes, and that are not computed: there, if at all, instead of in `own`."""
    own: Slots
    stem: int
    """Slots of the stem in `own`."""
    groups: int
    shift: Int[Tensor, " sequence"]
    """Slot in `own` less position, for the tokens of each sequence's branch."""

    @property
    def width(self) -> int:
        """Slots of a group."""
        return (self.own.node.shape[1] - self.stem) // self.groups

    def grouped(self, slots: Int[Tensor, "1 every"]) -> Int[Tensor, "group slot"]:
        """What belongs to the slots of each group."""
        return slots[:, self.stem :].view(self.groups, -1)

    def keys(self, what: str) -> Int[Tensor, "group key"]:
        """A field of the slots that a group may see: those that are known or the stem's, then its own."""
        own = getattr(self.own, what)
        before = torch.cat((getattr(self.known, what), own[:, : self.stem]), 1)
        return torch.cat((before.expand(self.groups, -1), self.grouped(own)), 1)

    def visible(self) -> Bool[Tensor, "group slot key"]:
        """Whether a slot's sequence holds each key, before or after it."""
        tree, branch = self.keys("tree")[:, None], self.keys("branch")[:, None]
        same = (branch == self.grouped(self.own.branch)[:, :, None]) | (branch == TRUNK)
        return same & (tree == self.grouped(self.own.tree)[:, :, None]) | (tree == STEM)


@dataclass(frozen=True)
class Forest:
    """Sequences as ranges of nodes; those of the stem come first, then those of trunks."""

    ids: Int[np.ndarray, " node"]
    position: Int[np.ndarray, " node"]
    stem: int
    """Nodes that all sequences begin with."""
    trunk: Int[np.ndarray, "sequence 2"]
    """The nodes of each sequence's trunk, from and to."""
    branch: Int[np.ndarray, "sequence 2"]
    tree: Int[np.ndarray, " sequence"]

    @property
    def trunks(self) -> int:
        """Number of nodes that lie in the stem or in trunks."""
        return int(self.trunk.max(initial=self.stem))

    def trees(self) -> list[list[int]]:
        """The sequences of each tree."""
        found: list[list[int]] = [[] for _ in range(int(self.tree.max(initial=-1)) + 1)]
        for sequence, tree in enumerate(self.tree):
            found[tree].append(sequence)
        return found

    def lengths(self) -> Int[np.ndarray, " tree"]:
        """Nodes of each tree, without the stem."""
        first = np.unique(self.tree, return_index=True)[1]
        return np.diff(self.trunk[first])[:, 0] + np.bincount(self.tree, np.diff(self.branch)[:, 0]).astype(int)

    def buckets(self, tokens: int) -> Iterator[list[int]]:
        """All sequences in batches of whole trees, by `length_buckets`; of each tree the stem counts, too."""
        trees = self.trees()
        for bucket in length_buckets((self.lengths() + self.stem).tolist(), tokens):
            yield [i for tree in bucket for i in trees[tree]]

    def batch(self, indices: Sequence[int], device: torch.device, *, trunks_known: bool = False) -> Batch:
        """The batch of some sequences, in their order; one that is given twice has two branches."""
        trees: dict[int, list[int]] = {}
        for place, i in enumerate(indices):
            trees.setdefault(int(self.tree[i]), []).append(place)
        stem: Span = (STEM, TRUNK, range(self.stem))
        trunks: list[Span] = [(tree, TRUNK, range(*self.trunk[indices[some[0]]])) for tree, some in trees.items()]
        branches: list[list[Span]] = [
            [(tree, 1 + place, range(*self.branch[indices[place]])) for place in places]
            for tree, places in trees.items()
        ]
        if trunks_known:
            known, first, groups = [stem, *trunks], [], [list(chain(*branches))]
        else:
            known, first = [], [stem]
            groups = [[trunk, *spans] for trunk, spans in zip(trunks, branches, strict=True)]
        sizes = [sum(len(nodes) for *_, nodes in spans) for spans in groups]
        fill: list[Span] = [(PADDING, PADDING, [0] * (max(sizes) - size)) for size in sizes]
        own = [*first, *(span for spans, more in zip(groups, fill, strict=True) for span in (*spans, more))]
        shift, slot = np.zeros(len(indices), dtype=int), 0
        for _, branch, nodes in own:
            if branch > TRUNK:
                shift[branch - 1] = slot - self.position[nodes[0]]
            slot += len(nodes)
        return Batch(
            known=self._slots(known, device),
            own=self._slots(own, device),
            stem=0 if trunks_known else self.stem,
            groups=len(groups),
            shift=torch.from_numpy(shift).to(device),
        )

    def _slots(self, spans: Sequence[Span], device: torch.device) -> Slots:
        sizes = [len(nodes) for *_, nodes in spans]
        node = np.fromiter(chain(*(nodes for *_, nodes in spans)), dtype=int)
        tree, branch = (np.repeat(np.array([span[k] for span in spans], dtype=int), sizes) for k in (0, 1))
        fields = (node, self.position[node], tree, branch)
        return Slots(*(torch.from_numpy(array)[None].to(device) for array in fields))


def grow(sequences: Sequence[Ids], own: Sequence[int]) -> Forest:
    """The forest of `sequences`; from position `own[i]` on, sequence `i` has its tokens for itself.

    Sequences share a trunk that is more than half of each of them: a shorter one is not worth its long group.
    """
    groups: list[list[int]] = []
    trunks: list[int] = []
    for i in sorted(range(len(sequences)), key=lambda i: (tuple(sequences[i]), i)):
        shared = min(own[i], trunks[-1], _common(sequences[groups[-1][-1]], sequences[i])) if groups else 0
        if groups and 2 * shared > max(len(sequences[j]) for j in (*groups[-1], i)):
            groups[-1].append(i)
            trunks[-1] = shared
        else:
            groups.append([i])
            trunks.append(own[i])
    # In sorted order, what the first and the last begin with is what all begin with.
    stem = min(*own, _common(sequences[groups[0][0]], sequences[groups[-1][-1]])) if len(groups) > 1 else 0
    tree = np.zeros(len(sequences), dtype=int)
    spans = np.zeros((2, len(sequences), 2), dtype=int)
    ids = [*sequences[0][:stem]] if stem else []
    position = [*range(stem)]
    for number, (group, length) in enumerate(zip(groups, trunks, strict=True)):
        tree[group], spans[0, group] = number, (len(ids), len(ids) + length - stem)
        ids += sequences[group[0]][stem:length]
        position += range(stem, length)
    for group, length in zip(groups, trunks, strict=True):
        for i in group:
            rest = sequences[i][length:]
            spans[1, i] = len(ids), len(ids) + len(rest)
            ids += rest
            position += range(length, length + len(rest))
    return Forest(np.array(ids, dtype=int), np.array(position, dtype=int), stem, spans[0], spans[1], tree)


def _common(one: Ids, other: Ids) -> int:
    """Number of tokens that both begin with."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def length_buckets(lengths: Sequence[int], tokens: int) -> Iterator[list[int]]:
    """Indices in batches of at most `tokens` tokens, padding counted; all at least 0.9 times as long as the longest.

    Longest first, so that memory that will not suffice is found out at once.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    while order:
        longest = lengths[order[0]]
        like = sum(lengths[i] >= 0.9 * longest for i in order)
        size = max(1, min(like, tokens // max(longest, 1)))
        yield order[:size]
        order = order[size:]
