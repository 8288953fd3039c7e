"""Explanations of single answers."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest
import torch

from absa_edit.data.prompts import encode
from absa_edit.data.settings import PromptSettings
from absa_edit.errors import ModelError
from absa_edit.inference import explain as module
from absa_edit.inference.classifier import Classifier
from absa_edit.inference.explain import explain
from absa_edit.methods.low_rank_edit import Edit
from absa_edit.records import Role
from absa_edit.tasks.absc import ABSC


@pytest.fixture
def classifier(small, trained) -> Classifier:
    return Classifier(small, trained(small), ABSC.prompt(), ABSC)


def test_tokens_layers_and_extremes(classifier, examples, small) -> None:
    found = explain(classifier, examples[0])
    (prompt,) = encode([examples[0]], small.tokenizer, ABSC.prompt())
    assert found.roles[0] is Role.before and found.roles[-1] is Role.last
    assert found.effects.shape == (len(found.tokens), 3)
    assert "".join(found.tokens).startswith("The screen is lovely")
    probabilities = classifier.answer([examples[0]])[0]
    assert found.clean == pytest.approx(max(probabilities.values()), abs=1e-4)
    assert probabilities[found.answer] == max(probabilities.values())
    # the last token after the last block is the whole answer; other tokens there reach nothing
    assert found.restored[-1, -1] == pytest.approx(found.clean, abs=1e-4)
    np.testing.assert_allclose(found.effects[:-1, -1], 0, atol=1e-6)
    assert len(prompt.ids) > len(found.tokens), "what stands before the sentence cannot differ"


def test_the_tracer_and_whole_runs_agree(classifier, examples, monkeypatch) -> None:
    """The fast way and the plain one, on a model with an adapter inside."""
    fast = explain(classifier, examples[1], seed=3)
    monkeypatch.setattr(module, "_traced", module._whole_runs)
    plain = explain(classifier, examples[1], seed=3, batch_tokens=200)
    assert (fast.clean, fast.corrupted) == pytest.approx((plain.clean, plain.corrupted), abs=1e-5)
    np.testing.assert_allclose(fast.restored, plain.restored, atol=1e-5)
    assert np.abs(fast.effects).max() > 0.01


def test_a_representation_edit_is_part_of_what_is_explained(small, trained, examples) -> None:
    edited = Classifier(small, trained(small, Edit(lr=1e-3, representation=True)), ABSC.prompt(), ABSC)
    found = explain(edited, examples[0])
    assert found.clean == pytest.approx(max(edited.answer([examples[0]])[0].values()), abs=1e-4)
    assert found.restored[-1, -1] == pytest.approx(found.clean, abs=1e-4)
    with torch.inference_mode(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(edited.adapted), "on", lambda *_: nullcontext())
        assert abs(explain(edited, examples[0]).clean - found.clean) > 1e-3


def test_the_noise_depends_on_the_seed(classifier, examples) -> None:
    assert explain(classifier, examples[0], seed=1).corrupted == explain(classifier, examples[0], seed=1).corrupted
    assert explain(classifier, examples[0], seed=1).corrupted != explain(classifier, examples[0], seed=2).corrupted


def test_words_that_begin_alike_cannot_be_told_apart(small, trained, examples) -> None:
    settings = ABSC.prompt(PromptSettings(labels=["good one", "good day", "bad"]))
    with pytest.raises(ModelError, match="two of the words share it"):
        explain(Classifier(small, trained(small), settings, ABSC), examples[0])
