"""Predictions against the argmax of the plain model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from contexts import adapt

from absa_edit.errors import ModelError
from absa_edit.evaluation.predict import log_probabilities, predictions
from absa_edit.methods.zero_shot import ZeroShot
from absa_edit.resampling import label_numbers
from absa_edit.tasks.absc import ABSC, POLARITIES, Polarity


@torch.no_grad()
def test_equals_the_plain_models_argmax(tiny, prompts, labels) -> None:
    adapted = adapt(tiny.model, ZeroShot(), None, seed=0)
    scores = log_probabilities(adapted, prompts, labels, batch_tokens=100)
    rows = predictions("zero_shot", "laptop", prompts, ABSC.labels, scores)
    first = [labels[p][0] for p in POLARITIES]
    for prompt, row in zip(prompts, rows, strict=True):
        logits = tiny.model(input_ids=torch.tensor([prompt.ids])).logits[0, -1, first]
        assert row.predicted == POLARITIES[int(logits.argmax())]
        np.testing.assert_allclose(list(row.probabilities.values()), logits.softmax(-1).numpy(), atol=1e-5)


@pytest.mark.parametrize("budget", [1, 64, 4096])
def test_does_not_depend_on_the_batches(small, prompts, labels, budget) -> None:
    adapted = adapt(small.model, ZeroShot(), None, seed=0)
    scores = log_probabilities(adapted, prompts, labels, batch_tokens=budget)
    expected = log_probabilities(adapted, prompts, labels, batch_tokens=150)
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    np.testing.assert_allclose(np.exp(scores).sum(1), 1.0)
    assert scores.std(0).min() > 1e-3


def test_answers_that_are_no_numbers_are_an_error(small, prompts, labels) -> None:
    adapted = adapt(small.model, ZeroShot(), None, seed=0)
    with torch.no_grad():
        adapted.model.get_output_embeddings().weight.fill_(torch.nan)
    with pytest.raises(ModelError, match=r"edit on laptop: .* 8 of 8 prompts are not numbers"):
        log_probabilities(adapted, prompts, labels, batch_tokens=150, name="edit on laptop")


def test_rows_keep_the_example(prompts) -> None:
    scores = np.log(np.random.default_rng(0).dirichlet(np.ones(3), len(prompts)))
    rows = predictions("edit", "laptop", prompts, ABSC.labels, scores)
    for prompt, row, score in zip(prompts, rows, scores, strict=True):
        e = prompt.example
        assert (row.id, row.sentence_id, row.text, row.aspect, row.gold) == (
            e.id, e.sentence_id, e.text, e.aspect, e.label,
        )  # fmt: skip
        assert list(row.probabilities) == ["positive", "negative", "neutral"]
        assert row.predicted == POLARITIES[int(np.argmax(score))]
        assert (row.method, row.test) == ("edit", "laptop")


def test_progress_sees_every_batch(small, prompts, labels) -> None:
    seen = []

    def progress(items, name, total=None):
        seen.append((name, total, list(items)))
        yield from seen[0][2]

    adapted = adapt(small.model, ZeroShot(), None, seed=0)
    log_probabilities(adapted, prompts, labels, batch_tokens=100, progress=progress, name="here")
    assert seen[0][:2] == ("here", len(seen[0][2])) and len(seen[0][2]) > 1


def test_label_numbers() -> None:
    assert label_numbers([Polarity.neutral, Polarity.positive, Polarity.negative], ABSC.labels).tolist() == [2, 0, 1]
