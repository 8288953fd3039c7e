"""Token sequences as a tree: what several of them begin with is there, and is computed, once.

The prompts of one sentence differ in the aspect at their end and in nothing before it; all prompts begin with the same
instruction. A batch is one long row: the root that all sequences begin with, then for each subtree its shared prefix
and the suffix of each sequence. Three prompts of two sentences, R the root, A and B the shared prefixes:

    sequence 1   R R A A A a a        one row   R R | A A A a a b b b | B B c c . . . .
    sequence 2   R R A A A b b b      position  0 1 | 2 3 4 5 6 5 6 7 | 2 3 4 5
    sequence 3   R R B B c c          subtree   root|        0        |    1    padding

A suffix sees the root, its shared prefix and itself (b sees R, A and b, not a), and its tokens stand at the positions
that they have in their own sequence; so every state is the one of that sequence alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

Ids = Sequence[int]

SHARED = 0
"""Suffix number of slots that are in no suffix; others are counted from 1."""
ROOT, PADDING = -2, -1
"""Subtree numbers of slots that are in no subtree; padding is in no suffix either."""


Span = tuple[int, int, Sequence[int]]
"""Subtree, suffix and nodes of tokens that lie side by side."""


@dataclass(frozen=True)
class Slots:
    """Places of tokens, all in one row."""

    node: Int[Tensor, "1 slot"]
    position: Int[Tensor, "1 slot"]
    subtree: Int[Tensor, "1 slot"]
    suffix: Int[Tensor, "1 slot"]


@dataclass(frozen=True)
class Batch:
    """Some sequences of a tree: the root, then `groups` of equally many slots that do not see each other.

    A group a subtree; or a single one of suffixes, where root and shared prefixes are known.
    """

    known: Slots
    """Root and shared prefixes that nothing changes and that are not computed; if there, then not in `computed`."""
    computed: Slots
    root: int
    """Slots of the root in `computed`."""
    groups: int
    shift: Int[Tensor, " sequence"]
    """Slot in `computed` less position, for the tokens of each sequence's suffix."""

    @property
    def width(self) -> int:
        """Slots of a group."""
        return (self.computed.node.shape[1] - self.root) // self.groups

    def grouped(self, slots: Int[Tensor, "1 every"]) -> Int[Tensor, "group slot"]:
        """What belongs to the slots of each group."""
        return slots[:, self.root :].view(self.groups, -1)

    def keys(self, what: str) -> Int[Tensor, "group key"]:
        """A field of the slots that a group may see: those that are known or the root's, then its own."""
        values = getattr(self.computed, what)
        before = torch.cat((getattr(self.known, what), values[:, : self.root]), 1)
        return torch.cat((before.expand(self.groups, -1), self.grouped(values)), 1)

    def visible(self) -> Bool[Tensor, "group slot key"]:
        """Whether a slot's sequence holds each key, before or after it."""
        subtree, suffix = self.keys("subtree")[:, None], self.keys("suffix")[:, None]
        same = (suffix == self.grouped(self.computed.suffix)[:, :, None]) | (suffix == SHARED)
        return same & (subtree == self.grouped(self.computed.subtree)[:, :, None]) | (subtree == ROOT)


@dataclass(frozen=True)
class PrefixTree:
    """Sequences as ranges of nodes; those of the root come first, then those of shared prefixes."""

    ids: Int[np.ndarray, " node"]
    position: Int[np.ndarray, " node"]
    root: int
    """Nodes that all sequences begin with."""
    shared_prefix: Int[np.ndarray, "sequence 2"]
    """The nodes of each sequence's shared prefix, from and to."""
    suffix: Int[np.ndarray, "sequence 2"]
    subtree: Int[np.ndarray, " sequence"]
    before: Ids = ()
    """Tokens that all sequences begin with and that are no nodes: a run brings their keys and values."""

    @property
    def shared_prefixes(self) -> int:
        """Number of nodes that lie in the root or in shared prefixes."""
        return int(self.shared_prefix.max(initial=self.root))

    def subtrees(self) -> list[list[int]]:
        """The sequences of each subtree."""
        members: list[list[int]] = [[] for _ in range(int(self.subtree.max(initial=-1)) + 1)]
        for sequence, subtree in enumerate(self.subtree):
            members[subtree].append(sequence)
        return members

    def lengths(self) -> Int[np.ndarray, " subtree"]:
        """Nodes of each subtree, without the root."""
        first = np.unique(self.subtree, return_index=True)[1]
        return np.asarray(
            np.diff(self.shared_prefix[first])[:, 0] + np.bincount(self.subtree, np.diff(self.suffix)[:, 0]).astype(int)
        )

    def buckets(self, tokens: int) -> Iterator[list[int]]:
        """All sequences in batches of whole subtrees, by `length_buckets`; of each subtree the root counts, too."""
        subtrees = self.subtrees()
        for bucket in length_buckets((self.lengths() + self.root).tolist(), tokens):
            yield [i for subtree in bucket for i in subtrees[subtree]]

    def batch(self, indices: Sequence[int], device: torch.device, *, prefixes_known: bool = False) -> Batch:
        """The batch of some sequences, in their order; one that is given twice has two suffixes."""
        subtrees: dict[int, list[int]] = {}
        for place, i in enumerate(indices):
            subtrees.setdefault(int(self.subtree[i]), []).append(place)
        root: Span = (ROOT, SHARED, range(self.root))
        shared_prefixes: list[Span] = [
            (subtree, SHARED, range(*self.shared_prefix[indices[some[0]]])) for subtree, some in subtrees.items()
        ]
        suffixes: list[list[Span]] = [
            [(subtree, 1 + place, range(*self.suffix[indices[place]])) for place in places]
            for subtree, places in subtrees.items()
        ]
        if prefixes_known:
            known, first, groups = [root, *shared_prefixes], [], [list(chain(*suffixes))]
        else:
            known, first = [], [root]
            groups = [[shared_prefix, *spans] for shared_prefix, spans in zip(shared_prefixes, suffixes, strict=True)]
        sizes = [sum(len(nodes) for *_, nodes in spans) for spans in groups]
        fill: list[Span] = [(PADDING, PADDING, [0] * (max(sizes) - size)) for size in sizes]
        computed = [*first, *(span for spans, more in zip(groups, fill, strict=True) for span in (*spans, more))]
        shift, slot = np.zeros(len(indices), dtype=int), 0
        for _, suffix, nodes in computed:
            if suffix > SHARED:
                shift[suffix - 1] = slot - self.position[nodes[0]]
            slot += len(nodes)
        return Batch(
            known=self._slots(known, device),
            computed=self._slots(computed, device),
            root=0 if prefixes_known else self.root,
            groups=len(groups),
            shift=torch.from_numpy(shift).to(device),
        )

    def _slots(self, spans: Sequence[Span], device: torch.device) -> Slots:
        sizes = [len(nodes) for *_, nodes in spans]
        node = np.fromiter(chain(*(nodes for *_, nodes in spans)), dtype=int)
        subtree, suffix = (np.repeat(np.array([span[k] for span in spans], dtype=int), sizes) for k in (0, 1))
        fields = (node, self.position[node], subtree, suffix)
        return Slots(*(torch.from_numpy(array)[None].to(device) for array in fields))


def grow_after(preamble: int, sequences: Sequence[Ids], prefix_limits: Sequence[int]) -> PrefixTree:
    """As `grow`, of what follows the tokens that all begin with, of the first `preamble` ones."""
    alike = (_common(sequences[0], sequence) for sequence in sequences)
    length = min(preamble, *prefix_limits, *alike) if sequences else 0
    tree = grow([sequence[length:] for sequence in sequences], [limit - length for limit in prefix_limits])
    return replace(tree, position=tree.position + length, before=tuple(sequences[0][:length]) if length else ())


def grow(sequences: Sequence[Ids], prefix_limits: Sequence[int], preamble: int = 0) -> PrefixTree:
    """The tree of `sequences`; from position `prefix_limits[i]` on, sequence `i` has its tokens for itself.

    Sequences share a prefix that is more than half of each of them: a shorter one is not worth its long group. The
    first `preamble` tokens, which all begin with, do not count for that.
    """
    groups: list[list[int]] = []
    shared_prefixes: list[int] = []
    for i in sorted(range(len(sequences)), key=lambda i: (tuple(sequences[i]), i)):
        shared = (
            min(prefix_limits[i], shared_prefixes[-1], _common(sequences[groups[-1][-1]], sequences[i]))
            if groups
            else 0
        )
        if groups and 2 * shared - preamble > max(len(sequences[j]) for j in (*groups[-1], i)):
            groups[-1].append(i)
            shared_prefixes[-1] = shared
        else:
            groups.append([i])
            shared_prefixes.append(prefix_limits[i])
    # In sorted order, what the first and the last begin with is what all begin with.
    root = min(*prefix_limits, _common(sequences[groups[0][0]], sequences[groups[-1][-1]])) if len(groups) > 1 else 0
    subtree = np.zeros(len(sequences), dtype=int)
    spans = np.zeros((2, len(sequences), 2), dtype=int)
    ids = [*sequences[0][:root]] if root else []
    position = [*range(root)]
    for number, (group, length) in enumerate(zip(groups, shared_prefixes, strict=True)):
        subtree[group], spans[0, group] = number, (len(ids), len(ids) + length - root)
        ids += sequences[group[0]][root:length]
        position += range(root, length)
    for group, length in zip(groups, shared_prefixes, strict=True):
        for i in group:
            rest = sequences[i][length:]
            spans[1, i] = len(ids), len(ids) + len(rest)
            ids += rest
            position += range(length, length + len(rest))
    return PrefixTree(np.array(ids, dtype=int), np.array(position, dtype=int), root, spans[0], spans[1], subtree)


def _common(first: Ids, second: Ids) -> int:
    """Number of tokens that both begin with."""
    return next(
        (i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second))
    )


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
