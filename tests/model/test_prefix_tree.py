"""Trees of token sequences: nothing is lost, and what is shared is there once."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from absa_edit.model.prefix_tree import PADDING, ROOT, PrefixTree, grow, length_buckets

CPU = torch.device("cpu")
ALIKE = [(5, 6, 1, 2, 3, 4, 7), (5, 6, 9, 8, 7), (5, 6, 1, 2, 3, 4, 8), (5, 6, 7)]
"""All begin with 5 and 6."""
SAME = [(1, 2, 3, 4, 5, 6), (1, 2, 3, 4, 7), (9, 8, 7), (1, 2, 3, 4, 5, 6)]


def nodes(tree: PrefixTree, i: int) -> list[int]:
    return [*range(tree.root), *range(*tree.shared_prefix[i]), *range(*tree.suffix[i])]


def random_sequences(count: int = 60) -> list[tuple[int, ...]]:
    rng = np.random.default_rng(0)
    made: list[tuple[int, ...]] = []
    for _ in range(count):
        root = made[rng.integers(len(made))] if made and rng.random() < 0.6 else tuple(rng.integers(1, 4, 12).tolist())
        keep = int(rng.integers(1, len(root) + 1))
        made.append((*root[:keep], *(int(t) for t in rng.integers(1, 4, rng.integers(1, 9)))))
    return made


@pytest.mark.parametrize("sequences", [SAME, ALIKE, random_sequences()], ids=["few", "alike", "many"])
def test_each_sequence_is_its_trunk_and_its_branch(sequences) -> None:
    own = [len(s) - 1 for s in sequences]
    tree = grow(sequences, own)
    for i, sequence in enumerate(sequences):
        assert tree.ids[nodes(tree, i)].tolist() == list(sequence)
        assert tree.position[nodes(tree, i)].tolist() == list(range(len(sequence)))
        assert tree.root + np.diff(tree.shared_prefix[i]) <= own[i]  # the rest is the sequence's alone
    assert tree.root + sum(tree.lengths()) == len(tree.ids)
    spans = {tuple(span) for span in [(0, tree.root), *tree.shared_prefix, *tree.suffix]}
    assert sum(stop - start for start, stop in spans) == len(tree.ids)  # no node is nobody's


def test_what_several_begin_with_is_there_once() -> None:
    tree = grow(SAME, [5, 4, 2, 5])
    assert sorted(map(sorted, tree.subtrees())) == [[0, 1, 3], [2]]
    assert len(tree.ids) == 4 + 2 + 1 + 2 + 3


def test_a_short_beginning_makes_no_tree() -> None:
    assert len(grow([(1, 2, 3, 4, 5), (1, 2, 6, 7, 8)], [4, 4]).subtrees()) == 2


def test_what_all_begin_with_is_there_once() -> None:
    tree = grow(ALIKE, [6, 4, 6, 2])
    assert tree.root == 2 and tree.ids[:2].tolist() == [5, 6] and tree.shared_prefixes == 2 + 4 + 2
    assert sorted(tree.ids[2:].tolist()) == [1, 2, 3, 4, 7, 7, 7, 8, 8, 9]
    assert grow(ALIKE, [6, 1, 6, 2]).root == 1  # the rest is a sequence's own
    assert grow(ALIKE[::2], [6, 6]).root == 0  # their shared prefix says it


def test_own_tokens_are_not_shared() -> None:
    tree = grow([(1, 2, 3, 4, 5), (1, 2, 3, 4, 6)], [3, 4])
    assert np.diff(tree.shared_prefix).tolist() == [[3], [3]]
    assert len(grow([(1, 2, 3, 4, 5), (1, 2, 3, 4, 6)], [2, 4]).subtrees()) == 2  # too little is left to share


@pytest.mark.parametrize("prefixes_known", [False, True])
@pytest.mark.parametrize(("sequences", "subtrees"), [(SAME, 2), (ALIKE, 3)], ids=["same", "alike"])
def test_slots_see_their_own_sequence_and_nothing_else(sequences, subtrees, prefixes_known) -> None:
    tree = grow(sequences, [len(s) - 1 for s in sequences])
    chosen = [2, 0, 3, 1, 0]
    batch = tree.batch(chosen, CPU, prefixes_known=prefixes_known)
    visible, keys = batch.visible(), batch.keys("node")
    for place, i in enumerate(chosen):
        last = len(sequences[i]) - 1
        slot = last + int(batch.shift[place])
        assert int(batch.computed.position[0, slot]) == last
        group, inside = divmod(slot - batch.root, batch.width)
        seen = visible[group, inside] & (batch.keys("subtree")[group] != PADDING)
        assert keys[group][seen].tolist() == nodes(tree, i)
        assert batch.keys("position")[group][seen].tolist() == list(range(len(sequences[i])))
    assert batch.groups == (1 if prefixes_known else subtrees)  # a group a subtree, or suffixes alone without padding
    assert (batch.computed.subtree[0] == ROOT).tolist() == [True] * batch.root + [False] * batch.groups * batch.width
    assert batch.root == (0 if prefixes_known else tree.root)


def test_batches_hold_whole_trees_within_the_budget() -> None:
    sequences = random_sequences(200)
    tree = grow(sequences, [len(s) - 1 for s in sequences])
    lengths, seen = tree.lengths(), []
    for batch in tree.buckets(120):
        subtrees = sorted(set(tree.subtree[batch]))
        assert sorted(batch) == sorted(i for t in subtrees for i in tree.subtrees()[t])
        assert len(subtrees) == 1 or len(subtrees) * max(lengths[subtrees]) <= 120
        seen += batch
    assert sorted(seen) == list(range(200))


def test_no_sequences_make_no_batches() -> None:
    assert list(grow([], []).buckets(100)) == []


@pytest.mark.parametrize("budget", [1, 37, 256, 10**6])
def test_buckets_cover_everything_once_within_the_budget(rng, budget) -> None:
    lengths = rng.integers(1, 60, size=200).tolist()
    batches = list(length_buckets(lengths, budget))
    assert sorted(i for batch in batches for i in batch) == list(range(200))
    for batch in batches:
        inside = [lengths[i] for i in batch]
        assert len(batch) == 1 or len(batch) * max(inside) <= budget
        assert min(inside) >= 0.9 * max(inside)
    tops = [lengths[batch[0]] for batch in batches]
    assert tops == sorted(tops, reverse=True)
