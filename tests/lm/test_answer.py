"""Whole-word log-probabilities against the plain model scored token by token."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from absa_edit.lm.answer import label_log_probabilities, length_buckets, rows
from absa_edit.lm.decoder import Decoder

ONE = [(11,), (12,), (13,)]
MANY = [(11, 40, 41), (11, 50), (13,)]


@torch.no_grad()
def plainly(model: torch.nn.Module, prompt: tuple[int, ...], label: tuple[int, ...]) -> float:
    """Sum of the label's token log-probabilities under the model's own forward."""
    logits = model(input_ids=torch.tensor([[*prompt, *label]])).logits[0].log_softmax(-1)
    return float(sum(logits[len(prompt) - 1 + k, token] for k, token in enumerate(label)))


@torch.no_grad()
@pytest.mark.parametrize("labels", [ONE, MANY], ids=["one token", "several"])
def test_equals_sequence_scoring_by_the_model(tiny, prompts, labels) -> None:
    ids = [p.ids for p in prompts[:3]]
    assert len(set(map(len, ids))) > 1
    scores = label_log_probabilities(Decoder(tiny.model), ids, labels)
    expected = [[plainly(tiny.model, prompt, label) for label in labels] for prompt in ids]
    np.testing.assert_allclose(scores.numpy(), expected, atol=2e-4, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("labels", [ONE, MANY], ids=["one token", "several"])
def test_does_not_depend_on_the_batch(small, prompts, labels) -> None:
    decoder, ids = Decoder(small.model), [p.ids for p in prompts]
    together = label_log_probabilities(decoder, ids, labels)
    alone = torch.cat([label_log_probabilities(decoder, [i], labels) for i in ids])
    backwards = label_log_probabilities(decoder, ids[::-1], labels).flip(0)
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(together, backwards, atol=1e-5, rtol=1e-5)


def test_rows_say_where_each_token_is_predicted() -> None:
    batch = rows([(5, 6, 7), (8,)], [(1, 2), (3,)], torch.device("cpu"))
    assert batch.input_ids.tolist() == [[5, 6, 7, 1], [8, 0, 0, 0]]
    assert batch.targets.tolist() == [[1, 2], [3, 0]]
    assert batch.valid.tolist() == [[True, True], [True, False]]
    assert batch.positions[batch.valid].tolist() == [2, 3, 0]
    assert batch.lengths.tolist() == [4, 1]


@pytest.mark.parametrize("budget", [1, 37, 256, 10**6])
def test_buckets_cover_everything_once_within_the_budget(rng, budget) -> None:
    lengths = rng.integers(1, 60, size=200).tolist()
    batches = list(length_buckets(lengths, budget))
    assert sorted(i for batch in batches for i in batch) == list(range(200))
    for batch in batches:
        longest = max(lengths[i] for i in batch)
        assert len(batch) == 1 or len(batch) * longest <= budget
    tops = [lengths[batch[0]] for batch in batches]
    assert tops == sorted(tops, reverse=True)


def test_no_buckets_of_nothing() -> None:
    assert list(length_buckets([], 100)) == []
