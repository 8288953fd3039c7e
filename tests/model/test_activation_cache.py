"""Frozen states against the run that they stand for."""

from __future__ import annotations

import copy
import gc
from pathlib import Path

import pytest
import torch
from contexts import adapt

from absa_edit.localizers.plan import plan_of
from absa_edit.methods.adapted_model import AdaptedModel
from absa_edit.methods.low_rank_edit import Edit
from absa_edit.model.activation_cache import ActivationCache
from absa_edit.model.answer_logits import AnswerLogits
from absa_edit.model.block_runner import BlockRunner
from absa_edit.records import Part, Role, Site

WORD = (11, 40)
CHOSEN = [6, 0, 1, 4, 0]


def answers_of(model, prompts) -> AnswerLogits:
    return AnswerLogits(BlockRunner(model), [p.ids for p in prompts], [WORD] * len(prompts))


@torch.no_grad()
@pytest.mark.parametrize("start", [0, 1, 2, 3])
@pytest.mark.parametrize("prefixes_known", [False, True])
def test_a_run_from_frozen_states_is_the_whole_run(tiny, prompts, start, prefixes_known) -> None:
    answers = answers_of(tiny.model, prompts)
    frozen = ActivationCache(
        answers.runner, answers.tree, start, gib=1.0, prefixes_known=prefixes_known, batch_tokens=100
    )
    torch.testing.assert_close(answers.logits(CHOSEN, frozen), answers.logits(CHOSEN), atol=1e-5, rtol=1e-5)


def representation(lm, layers: tuple[int, ...], position: Role) -> AdaptedModel:
    method = Edit(lr=1e-3, weights=False, representation=True, position=position)
    sites = [Site(layer, Part.attn) for layer in layers]
    adapted = adapt(lm.model, method, plan_of(lm.runner, sites, 2, "manual"), seed=0)
    for name, parameter in adapted.trainable().items():
        if "source" in name:
            parameter.data.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    return adapted


@torch.no_grad()
@pytest.mark.parametrize("layers", [(0, 1), (1,), (2,), (0, 2)])
@pytest.mark.parametrize("position", [Role.last, Role.aspect])
def test_a_representation_edit_runs_its_own_tokens_only(tiny, prompts, layers, position) -> None:
    if position is not Role.last and layers == (2,):
        pytest.skip("nothing reads the last block there")
    adapted = representation(tiny, layers, position)
    answers = adapted.answers(prompts, [WORD] * len(prompts))
    assert adapted.prefixes_known and adapted.start == layers[0] + 1
    frozen = ActivationCache(answers.runner, answers.tree, adapted.start, gib=1.0, prefixes_known=True)
    whole = answers.logits(CHOSEN)
    torch.testing.assert_close(answers.logits(CHOSEN, frozen), whole, atol=1e-5, rtol=1e-5)
    if position is Role.last:  # sliding windows may not look back as far as the aspect
        assert not torch.allclose(whole, answers_of(tiny.model, prompts).logits(CHOSEN), atol=1e-3)


@torch.no_grad()
def test_goes_on_from_states_below(small, prompts) -> None:
    answers = answers_of(small.model, prompts)
    below = ActivationCache(answers.runner, answers.tree, 1, gib=1.0)
    above, alone = (
        ActivationCache(answers.runner, answers.tree, 2, gib=1.0, below=below),
        ActivationCache(answers.runner, answers.tree, 2, gib=1.0),
    )
    batch = answers.tree.batch(CHOSEN, torch.device("cpu"))
    assert torch.equal(above.states(batch), alone.states(batch))
    assert not torch.equal(above.states(batch), below.states(batch))


def test_on_disk_is_the_same_as_in_memory(small, prompts) -> None:
    answers = answers_of(small.model, prompts)
    memory, disk = (
        ActivationCache(answers.runner, answers.tree, 2, gib=gib, prefixes_known=True) for gib in (1.0, 0.0)
    )
    assert torch.equal(answers.logits(CHOSEN, memory), answers.logits(CHOSEN, disk))


def test_keeps_the_models_dtype(small, prompts) -> None:
    answers = answers_of(copy.deepcopy(small.model).bfloat16(), prompts)
    batch = answers.tree.batch(CHOSEN, torch.device("cpu"))
    assert ActivationCache(answers.runner, answers.tree, 1, gib=0.0).states(batch).dtype is torch.bfloat16


def test_nothing_stays_on_disk(small, prompts, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    answers = answers_of(small.model, prompts)
    frozen = ActivationCache(answers.runner, answers.tree, 1, gib=0.0)
    assert frozen.states(answers.tree.batch([0], torch.device("cpu"))).isfinite().all()
    del frozen
    gc.collect()
    assert not list(Path(tmp_path).iterdir())
