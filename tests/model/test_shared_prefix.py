"""What all prompts begin with, computed once, against each prompt on its own through the model's own forward."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from contexts import adapt

from absa_edit.data.prompts import Prompt, encode
from absa_edit.data.settings import PromptSettings
from absa_edit.data.shots import preamble_of
from absa_edit.evaluation.predict import BaseStates, log_probabilities, scored
from absa_edit.localizers.plan import plan_of
from absa_edit.methods.low_rank_edit import Edit
from absa_edit.methods.zero_shot import ZeroShot
from absa_edit.model.attention import Heads, mix, mix_after
from absa_edit.model.block_runner import BlockRunner
from absa_edit.model.prefix_tree import grow, grow_after
from absa_edit.records import Part, Site
from absa_edit.tasks.absc import ABSC


@pytest.fixture(scope="module")
def after_shots(examples, tokenizer) -> list[Prompt]:
    text = preamble_of(examples[2:3], ABSC.labels, ABSC.prompt())
    return encode(examples, tokenizer, ABSC.prompt(PromptSettings(preamble=text)))


@torch.no_grad()
def one_by_one(adapted, prompts, labels) -> np.ndarray:
    """Log-probabilities of the label words, normalised, a full forward pass a prompt and word."""
    rows = []
    for prompt in prompts:
        row = []
        for word in labels.values():
            with adapted.on(prompt):
                logits = adapted.model(input_ids=torch.tensor([[*prompt.ids, *word[:-1]]])).logits[0]
            tokens = logits[len(prompt.ids) - 1 :].double().log_softmax(-1)
            row.append(float(sum(tokens[i, token] for i, token in enumerate(word))))
        rows.append(np.array(row) - np.logaddexp.reduce(row))
    return np.array(rows)


@pytest.mark.every_family
@pytest.mark.parametrize("words", [None, ((11, 40, 41), (12,), (13, 50))], ids=["one token", "several tokens"])
def test_equals_each_prompt_on_its_own(tiny, after_shots, prompts, labels, words) -> None:
    named = labels if words is None else dict(zip(labels, words, strict=True))
    adapted = adapt(tiny.model, ZeroShot(), None, seed=0)
    found = log_probabilities(adapted, after_shots, named, batch_tokens=150)
    np.testing.assert_allclose(found, one_by_one(adapted, after_shots, named), atol=2e-5)
    assert np.abs(found).std() > 1e-3
    assert scored(adapted, after_shots, named).tree.before == after_shots[0].ids[: after_shots[0].preamble]


def trained(lm, method: Edit):
    adapted = adapt(lm.model, method, plan_of(lm.runner, [Site(k, Part.attn) for k in (1, 2)], 2, "manual"), seed=0)
    generator = torch.Generator().manual_seed(1)
    for parameter in adapted.trainable().values():
        parameter.data.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return adapted


@pytest.mark.parametrize("representation", [False, True])
def test_of_an_edit_with_states_from_below_it(tiny, after_shots, labels, representation, tmp_path) -> None:
    """Kept states are of what follows the shots; those of other shots before the same prompts are other states."""
    adapted = trained(tiny, Edit(lr=1e-3, representation=representation))
    stored = []
    base = BaseStates(
        labels, torch.float32, [1], 150, 1.0, store=lambda key: stored.append(key) or tmp_path / stored[-1]
    )
    frozen = base.of(adapted, "test", after_shots)
    found = log_probabilities(adapted, after_shots, labels, batch_tokens=150, frozen=frozen)
    np.testing.assert_allclose(found, one_by_one(adapted, after_shots, labels), atol=3e-5)
    others = [Prompt(p.example, (*p.ids[:3], p.ids[3] + 1, *p.ids[4:]), p.roles, p.preamble) for p in after_shots]
    base.of(adapted, "other shots", others)
    assert len(set(stored)) == 2


def test_runs_once_however_many_batches(small, after_shots, labels, monkeypatch) -> None:
    lengths: list[int] = []
    run = BlockRunner.run

    def counted(self, hidden, start, stop, block_inputs):
        if start == 0 and hidden.shape[0] == 1:
            lengths.append(hidden.shape[1])
        return run(self, hidden, start, stop, block_inputs)

    monkeypatch.setattr(BlockRunner, "run", counted)
    adapted = adapt(small.model, ZeroShot(), None, seed=0)
    log_probabilities(adapted, after_shots, labels, batch_tokens=1)
    shots = after_shots[0].preamble
    assert lengths.count(shots) == 1 and len(lengths) > 5
    assert max(sorted(lengths)[:-1], default=0) < 2 * (max(len(p.ids) for p in after_shots) - shots)


def test_prompts_without_shots_have_nothing_before_them(small, prompts, labels) -> None:
    answers = scored(adapt(small.model, ZeroShot(), None, seed=0), prompts, labels)
    same = grow([p.ids for p in prompts], [len(p.ids) - 1 for p in prompts])
    assert answers.tree.before == () and answers.before == ()
    assert answers.tree.ids.tolist() == same.ids.tolist() and answers.tree.root == same.root > 0


def test_the_tree_after_shots_is_the_tree_without_them(prompts, after_shots) -> None:
    """Not one large subtree, though every two prompts share more than half of their tokens."""
    plain = grow([p.ids[1:] for p in prompts], [len(p.ids) - 2 for p in prompts])
    shots, sequences, limits = (
        after_shots[0].preamble,
        [p.ids for p in after_shots],
        [len(p.ids) - 1 for p in after_shots],
    )
    apart, together = grow_after(shots, sequences, limits), grow(sequences, limits, shots)
    assert [*map(sorted, apart.subtrees())] == [*map(sorted, plain.subtrees())] == [*map(sorted, together.subtrees())]
    assert apart.ids.tolist() == plain.ids.tolist() and (apart.position - plain.position == shots).all()
    assert together.root == shots + apart.root
    assert grow_after(shots, [], []).before == ()
    assert grow_after(9, [(1, 2, 3, 4), (1, 2, 4, 4)], [3, 3]).before == (1, 2), "no more than all begin with"


@pytest.mark.parametrize("softcap", [None, 0.5])
@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 2e-6), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("cached", [1, 2 * 4 * 5 * 7, 2**20])
def test_mixing_in_two_parts_equals_mixing_at_once(softcap, dtype, atol, cached, monkeypatch) -> None:
    monkeypatch.setattr("absa_edit.model.attention.CACHED", cached)
    torch.manual_seed(0)
    rows, heads, groups, own, early, width = 3, 4, 2, 5, 7, 8
    query, key, value = (torch.randn(rows, n, own, width, dtype=dtype) for n in (heads, groups, groups))
    before = torch.randn(1, groups, early, width, dtype=dtype), torch.randn(1, groups, early, width, dtype=dtype)
    asked = Heads(query, key, value, 0.7, softcap)
    allowed = torch.rand(rows, 1, 1, own, early + own) > 0.4
    allowed[..., range(own), range(early, early + own)] = True
    allowed[0, ..., 0, :early] = False  # out of a sliding window's sight
    for seen in (allowed, allowed[0, 0, 0], torch.ones_like(allowed)):
        torch.testing.assert_close(mix_after(asked, seen, before), mix(asked, seen, before), atol=atol, rtol=0)
    alone, every = allowed[..., early:], torch.cat((torch.ones_like(allowed[..., :early]), allowed[..., early:]), -1)
    assert torch.equal(mix_after(asked, alone, before), mix_after(asked, every, before))
    far = Heads(query * 1000, key, value, 0.7, None)
    assert mix_after(far, allowed, before).isfinite().all()
