"""Token sequences as trees: what several of them begin with is there, and is computed, once.

The prompts of one sentence differ in the aspect at their end and in nothing before it. A batch has a row for each
tree: its trunk, then the branch of each sequence. A branch sees the trunk and itself, and its tokens stand at the
positions that they have in their own sequence; so every state is the one of that sequence alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

Ids = Sequence[int]

TRUNK, PADDING = 0, -1
"""Branch numbers of slots that are in no branch."""


Span = tuple[int, int, range]
"""Tree, branch and nodes of tokens that lie side by side."""


@dataclass(frozen=True)
class Slots:
    """Places of tokens, row by row; branches are numbered from 1."""

    node: Int[Tensor, "row slot"]
    position: Int[Tensor, "row slot"]
    tree: Int[Tensor, "row slot"]
    branch: Int[Tensor, "row slot"]


@dataclass(frozen=True)
class Batch:
    """Some sequences of a forest: a row a tree; or one row of branches, where trunks are known."""

    known: Slots
    """Trunks that nothing changes, and that are not computed: there, if at all, instead of in `own`."""
    own: Slots
    row: Int[Tensor, " sequence"]
    shift: Int[Tensor, " sequence"]
    """Slot in `own` less position, for the tokens of each sequence's branch."""

    @property
    def key_positions(self) -> Int[Tensor, "row key"]:
        """Positions of all that a slot may see: what is known, then the row's own."""
        return torch.cat((self.known.position, self.own.position), 1)

    def visible(self) -> Bool[Tensor, "row slot key"]:
        """Whether a slot's sequence holds each key, before or after it."""
        tree, branch = (
            torch.cat((known, own), 1)[:, None]
            for known, own in ((self.known.tree, self.own.tree), (self.known.branch, self.own.branch))
        )
        same = (branch == self.own.branch[:, :, None]) | (branch == TRUNK)
        return same & (tree == self.own.tree[:, :, None])


@dataclass(frozen=True)
class Forest:
    """Sequences as ranges of nodes; the nodes of trunks come first."""

    ids: Int[np.ndarray, " node"]
    position: Int[np.ndarray, " node"]
    trunk: Int[np.ndarray, "sequence 2"]
    """The nodes of each sequence's trunk, from and to."""
    branch: Int[np.ndarray, "sequence 2"]
    tree: Int[np.ndarray, " sequence"]

    @property
    def trunks(self) -> int:
        """Number of nodes that lie in trunks."""
        return int(self.trunk.max(initial=0))

    def trees(self) -> list[list[int]]:
        """The sequences of each tree."""
        found: list[list[int]] = [[] for _ in range(int(self.tree.max(initial=-1)) + 1)]
        for sequence, tree in enumerate(self.tree):
            found[tree].append(sequence)
        return found

    def lengths(self) -> Int[np.ndarray, " tree"]:
        """Nodes of each tree."""
        first = np.unique(self.tree, return_index=True)[1]
        return np.diff(self.trunk[first])[:, 0] + np.bincount(self.tree, np.diff(self.branch)[:, 0]).astype(int)

    def buckets(self, tokens: int) -> Iterator[list[int]]:
        """All sequences in batches of whole trees, by `length_buckets`."""
        trees = self.trees()
        for bucket in length_buckets(self.lengths().tolist(), tokens):
            yield [i for tree in bucket for i in trees[tree]]

    def batch(self, indices: Sequence[int], device: torch.device, *, trunks_known: bool = False) -> Batch:
        """The batch of some sequences, in their order; one that is given twice has two branches."""
        trees: dict[int, list[int]] = {}
        for place, i in enumerate(indices):
            trees.setdefault(int(self.tree[i]), []).append(place)
        row, shift = np.zeros((2, len(indices)), dtype=int)
        rows = 1 if trunks_known else len(trees)
        known: list[list[Span]] = [[] for _ in range(rows)]
        own: list[list[Span]] = [[] for _ in range(rows)]
        used = [0] * rows
        branch = 0
        for number, (tree, places) in enumerate(trees.items()):
            at = 0 if trunks_known else number
            trunk = range(*self.trunk[indices[places[0]]])
            (known if trunks_known else own)[at].append((tree, TRUNK, trunk))
            used[at] += 0 if trunks_known else len(trunk)
            for place in places:
                nodes = range(*self.branch[indices[place]])
                branch += 1
                row[place], shift[place] = at, used[at] - len(trunk)
                own[at].append((tree, branch, nodes))
                used[at] += len(nodes)
        where = (torch.from_numpy(array).to(device) for array in (row, shift))
        return Batch(self._slots(known, device), self._slots(own, device), *where)

    def _slots(self, rows: list[list[Span]], device: torch.device) -> Slots:
        width = max(sum(len(nodes) for _, _, nodes in spans) for spans in rows)
        node = np.zeros((len(rows), width), dtype=int)
        tree, branch = np.full((2, len(rows), width), PADDING)
        for number, spans in enumerate(rows):
            used = 0
            for one, name, nodes in spans:
                here = slice(used, used + len(nodes))
                node[number, here], tree[number, here], branch[number, here] = nodes, one, name
                used += len(nodes)
        position = np.where(branch == PADDING, 0, self.position[node])
        return Slots(*(torch.from_numpy(array).to(device) for array in (node, position, tree, branch)))


def grow(sequences: Sequence[Ids], own: Sequence[int]) -> Forest:
    """The forest of `sequences`; from position `own[i]` on, sequence `i` has its tokens for itself.

    Sequences share a trunk that is more than half of each of them: a shorter one is not worth its long row.
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
    tree = np.zeros(len(sequences), dtype=int)
    spans = np.zeros((2, len(sequences), 2), dtype=int)
    ids: list[int] = []
    position: list[int] = []
    for number, (group, length) in enumerate(zip(groups, trunks, strict=True)):
        tree[group], spans[0, group] = number, (len(ids), len(ids) + length)
        ids += sequences[group[0]][:length]
        position += range(length)
    for group, length in zip(groups, trunks, strict=True):
        for i in group:
            rest = sequences[i][length:]
            spans[1, i] = len(ids), len(ids) + len(rest)
            ids += rest
            position += range(length, length + len(rest))
    return Forest(np.array(ids, dtype=int), np.array(position, dtype=int), spans[0], spans[1], tree)


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
