"""Trees of token sequences: nothing is lost, and what is shared is there once."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from absa_edit.lm.forest import PADDING, STEM, Forest, grow, length_buckets

CPU = torch.device("cpu")
ALIKE = [(5, 6, 1, 2, 3, 4, 7), (5, 6, 9, 8, 7), (5, 6, 1, 2, 3, 4, 8), (5, 6, 7)]
"""All begin with 5 and 6."""
SAME = [(1, 2, 3, 4, 5, 6), (1, 2, 3, 4, 7), (9, 8, 7), (1, 2, 3, 4, 5, 6)]


def nodes(forest: Forest, i: int) -> list[int]:
    return [*range(forest.stem), *range(*forest.trunk[i]), *range(*forest.branch[i])]


def random_sequences(count: int = 60) -> list[tuple[int, ...]]:
    rng = np.random.default_rng(0)
    made: list[tuple[int, ...]] = []
    for _ in range(count):
        stem = made[rng.integers(len(made))] if made and rng.random() < 0.6 else tuple(rng.integers(1, 4, 12).tolist())
        keep = int(rng.integers(1, len(stem) + 1))
        made.append((*stem[:keep], *(int(t) for t in rng.integers(1, 4, rng.integers(1, 9)))))
    return made


@pytest.mark.parametrize("sequences", [SAME, ALIKE, random_sequences()], ids=["few", "alike", "many"])
def test_each_sequence_is_its_trunk_and_its_branch(sequences) -> None:
    own = [len(s) - 1 for s in sequences]
    forest = grow(sequences, own)
    for i, sequence in enumerate(sequences):
        assert forest.ids[nodes(forest, i)].tolist() == list(sequence)
        assert forest.position[nodes(forest, i)].tolist() == list(range(len(sequence)))
        assert forest.stem + np.diff(forest.trunk[i]) <= own[i]  # the rest is the sequence's alone
    assert forest.stem + sum(forest.lengths()) == len(forest.ids)
    spans = {tuple(span) for span in [(0, forest.stem), *forest.trunk, *forest.branch]}
    assert sum(stop - start for start, stop in spans) == len(forest.ids)  # no node is nobody's


def test_what_several_begin_with_is_there_once() -> None:
    forest = grow(SAME, [5, 4, 2, 5])
    assert sorted(map(sorted, forest.trees())) == [[0, 1, 3], [2]]
    assert len(forest.ids) == 4 + 2 + 1 + 2 + 3


def test_a_short_beginning_makes_no_tree() -> None:
    assert len(grow([(1, 2, 3, 4, 5), (1, 2, 6, 7, 8)], [4, 4]).trees()) == 2


def test_what_all_begin_with_is_there_once() -> None:
    forest = grow(ALIKE, [6, 4, 6, 2])
    assert forest.stem == 2 and forest.ids[:2].tolist() == [5, 6] and forest.trunks == 2 + 4 + 2
    assert sorted(forest.ids[2:].tolist()) == [1, 2, 3, 4, 7, 7, 7, 8, 8, 9]
    assert grow(ALIKE, [6, 1, 6, 2]).stem == 1  # the rest is a sequence's own
    assert grow(ALIKE[::2], [6, 6]).stem == 0  # their trunk says it


def test_own_tokens_are_not_shared() -> None:
    forest = grow([(1, 2, 3, 4, 5), (1, 2, 3, 4, 6)], [3, 4])
    assert np.diff(forest.trunk).tolist() == [[3], [3]]
    assert len(grow([(1, 2, 3, 4, 5), (1, 2, 3, 4, 6)], [2, 4]).trees()) == 2  # too little is left to share


@pytest.mark.parametrize("trunks_known", [False, True])
@pytest.mark.parametrize(("sequences", "trees"), [(SAME, 2), (ALIKE, 3)], ids=["same", "alike"])
def test_slots_see_their_own_sequence_and_nothing_else(sequences, trees, trunks_known) -> None:
    forest = grow(sequences, [len(s) - 1 for s in sequences])
    chosen = [2, 0, 3, 1, 0]
    batch = forest.batch(chosen, CPU, trunks_known=trunks_known)
    visible, keys = batch.visible(), batch.keys("node")
    for place, i in enumerate(chosen):
        last = len(sequences[i]) - 1
        slot = last + int(batch.shift[place])
        assert int(batch.own.position[0, slot]) == last
        group, inside = divmod(slot - batch.stem, batch.width)
        seen = visible[group, inside] & (batch.keys("tree")[group] != PADDING)
        assert keys[group][seen].tolist() == nodes(forest, i)
        assert batch.keys("position")[group][seen].tolist() == list(range(len(sequences[i])))
    assert batch.groups == (1 if trunks_known else trees)  # a group a tree, or branches alone without padding
    assert (batch.own.tree[0] == STEM).tolist() == [True] * batch.stem + [False] * batch.groups * batch.width
    assert batch.stem == (0 if trunks_known else forest.stem)


def test_batches_hold_whole_trees_within_the_budget() -> None:
    sequences = random_sequences(200)
    forest = grow(sequences, [len(s) - 1 for s in sequences])
    lengths, seen = forest.lengths(), []
    for batch in forest.buckets(120):
        trees = sorted(set(forest.tree[batch]))
        assert sorted(batch) == sorted(i for t in trees for i in forest.trees()[t])
        assert len(trees) == 1 or len(trees) * max(lengths[trees]) <= 120
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
