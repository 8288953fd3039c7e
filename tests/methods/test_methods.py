"""Every method on every family: what trains, that nothing changes before training, and what plain steps move."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from conftest import tiny_model
from contexts import adapt
from families import sites_in
from torch import Tensor

from absa_edit.errors import PlanError
from absa_edit.evaluation.predict import log_probabilities
from absa_edit.export.folder import merged
from absa_edit.localizers.plan import plan_of
from absa_edit.methods.adapted_model import AdaptedModel, changed_elsewhere
from absa_edit.methods.delta import Delta
from absa_edit.methods.full import Full
from absa_edit.methods.full_located import FullLocated
from absa_edit.methods.lora import Lora
from absa_edit.methods.loreft import Reft
from absa_edit.methods.low_rank_edit import Edit
from absa_edit.methods.settings import MethodSettings
from absa_edit.methods.zero_shot import ZeroShot
from absa_edit.model.architectures import layout
from absa_edit.model.loading import LanguageModel
from absa_edit.records import EditPlan, Part, Site, Target

EDIT = Edit(lr=1e-2)
REPRESENTATION = Edit(lr=1e-2, representation=True)
METHODS = {
    "zero_shot": ZeroShot(),
    "edit": EDIT,
    "representation": REPRESENTATION,
    "alone": Edit(lr=1e-2, weights=False, representation=True),
    "delta": Delta(lr=1e-2),
    "lora": Lora(lr=1e-2),
    "full": Full(lr=1e-2),
    "full_located": FullLocated(lr=1e-2),
    "reft": Reft(lr=1e-2),
}
SITES = [Site(1, Part.attn), Site(1, Part.mlp), Site(2, Part.mlp)]


def adapted_to(lm: LanguageModel, method: MethodSettings, rank: int = 2) -> AdaptedModel:
    return adapt(lm.model, method, plan_of(lm.runner, sites_in(lm.model, SITES), rank, "manual"), seed=0)


def answers(adapted: AdaptedModel, prompts, labels) -> Tensor:
    return torch.from_numpy(log_probabilities(adapted, prompts, labels, batch_tokens=400))


def train(adapted: AdaptedModel, prompts, labels, steps: int = 3) -> None:
    """A few plain steps through the model's own forward."""
    optimizer = torch.optim.AdamW(adapted.parameter_groups(), weight_decay=0.0)
    adapted.modes(training=True)
    for _ in range(steps):
        for prompt in prompts[:2]:
            with adapted.on(prompt):
                logits = adapted.model(input_ids=torch.tensor([prompt.ids]), use_cache=False).logits[:, -1]
            target = torch.tensor([labels[prompt.example.label][0]])
            torch.nn.functional.cross_entropy(logits, target).backward()
        optimizer.step()
        optimizer.zero_grad()
    adapted.modes(training=False)


@pytest.mark.parametrize("name", METHODS)
def test_untrained_answers_are_the_base_models(tiny, prompts, labels, name) -> None:
    before = {n: p.clone() for n, p in tiny.model.named_parameters()}
    modules = dict(tiny.model.named_modules())
    adapted = adapted_to(tiny, METHODS[name])
    base = adapt(tiny.model, ZeroShot(), None, seed=0)
    if name in ("representation", "alone", "reft"):  # R^T (R h - R h) is 0 up to rounding
        torch.testing.assert_close(
            answers(adapted, prompts, labels), answers(base, prompts, labels), atol=1e-4, rtol=1e-4
        )
    else:
        assert torch.equal(answers(adapted, prompts, labels), answers(base, prompts, labels))
    assert dict(tiny.model.named_modules()) == modules
    assert not any(p.requires_grad for p in tiny.model.parameters())
    assert all(torch.equal(before[n], p) for n, p in tiny.model.named_parameters())


@pytest.mark.parametrize("name", [n for n in METHODS if n != "zero_shot"])
def test_training_moves_the_plan_and_nothing_else(tiny, prompts, labels, name) -> None:
    adapted = adapted_to(tiny, METHODS[name])
    before = {n: p.detach().clone() for n, p in adapted.trainable().items()}
    untrained = answers(adapted, prompts, labels)
    train(adapted, prompts, labels)
    assert not list(changed_elsewhere(adapted, tiny.model))
    still = [n for n, p in adapted.trainable().items() if torch.equal(before[n], p)]
    if name not in ("full", "full_located", "reft"):  # no gradient reaches all of them: experts, tokens out of a window
        # behind the last block nothing reads the edited position
        assert all(n.startswith("representation.edits.1.") for n in still)
    assert not torch.allclose(answers(adapted, prompts, labels), untrained, atol=1e-4)


def test_nothing_is_dropped_before_training_begins(small) -> None:
    """What is put back from disk is asked at once."""
    for method in (Edit(lr=1e-2, dropout=0.5), Lora(lr=1e-2, dropout=0.5)):
        assert not any(m.training for m in adapted_to(small, method).model.modules())


@pytest.mark.parametrize("name", ["zero_shot", "edit", "representation", "delta", "lora"])
def test_a_frozen_weight_that_moved_is_named(tiny, name) -> None:
    adapted = adapted_to(tiny, METHODS[name])
    victim = f"{tiny.runner.path(Site(0, Part.attn))}.weight"
    for own, parameter in adapted.model.named_parameters():
        if own.replace(".base_layer.", ".") == victim:
            with torch.no_grad():
                parameter.view(-1)[5] = torch.nextafter(parameter.view(-1)[5], torch.tensor(9.0))
    assert list(changed_elsewhere(adapted, tiny.model)) == [victim]


def test_a_moved_base_weight_under_an_adapter_is_named(small) -> None:
    adapted = adapted_to(small, EDIT)
    with torch.no_grad():
        adapted.model.model.layers[1].self_attn.o_proj.base_layer.weight[0, 0] += 1
        adapted.model.model.norm.weight[3] += 1
    assert list(changed_elsewhere(adapted, small.model)) == [
        "model.layers.1.self_attn.o_proj.weight",
        "model.norm.weight",
    ]


def test_trainable_counts_by_hand(small) -> None:
    """The tiny Llama: 32 wide, o_proj 32 x 32, down_proj 48 -> 32, two key-value heads of four."""
    attn, mlp = 32 + 32, 48 + 32
    assert adapted_to(small, EDIT, 2).count() == 2 * (attn + mlp + mlp)
    assert adapted_to(small, EDIT, 5).count() == 5 * (attn + mlp + mlp)
    assert adapted_to(small, EDIT, 2).plan.parameters == adapted_to(small, EDIT, 2).count()
    reft = replace(REPRESENTATION, representation_rank=3)
    representation = 3 * 32 + 3 * 32 + 3  # layer 1; nothing reads the last block before the last token
    assert adapted_to(small, reft).count() == 2 * (attn + mlp + mlp) + representation
    assert adapted_to(small, METHODS["delta"]).count() == 32 * 32 + 2 * 48 * 32
    linear = 2 * (32 + 32) + 2 * (32 + 16) + 3 * (32 + 48)  # q, o; k, v; gate, up, down
    assert adapted_to(small, Lora(lr=1e-3, rank=3)).count() == 3 * 3 * linear
    assert adapted_to(small, METHODS["full"]).count() == sum(p.numel() for p in small.model.parameters())
    assert adapted_to(small, METHODS["zero_shot"]).count() == 0


def test_the_plan_counts_what_trains(tiny) -> None:
    adapted = adapted_to(tiny, EDIT, 3)
    assert adapted.count() == adapted.plan.parameters > 0


def test_touched_entries_by_hand(small) -> None:
    sites = 32 * 32 + 2 * 48 * 32
    block = 2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 48
    touched = {name: adapted_to(small, method).touched for name, method in METHODS.items()}
    total = sum(p.numel() for p in small.model.parameters())
    assert touched == {
        "zero_shot": 0, "edit": sites, "representation": sites, "alone": 0, "delta": sites, "lora": 3 * block,
        "full": total, "full_located": 2 * (block + 2 * 32), "reft": 0,
    }  # fmt: skip


def test_the_first_block_that_can_change(small) -> None:
    starts = {name: adapted_to(small, method).start for name, method in METHODS.items()}
    assert starts == {
        "zero_shot": 3, "edit": 1, "representation": 1, "alone": 2, "delta": 1, "lora": 0, "full": -1,
        "full_located": 1, "reft": 1,
    }  # fmt: skip


def test_the_seed_draws_the_first_weights_and_leaves_the_callers_generator(small) -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    plan = plan_of(small.runner, SITES, 2, "manual")
    torch.manual_seed(5)
    a, b, c = (adapt(small.model, REPRESENTATION, plan, seed=seed).trainable() for seed in (1, 1, 2))
    assert torch.rand(1) == expected
    assert all(torch.equal(a[n], b[n]) for n in a)
    assert any(not torch.equal(a[n], c[n]) for n in a if "lora_A" in n)


@pytest.mark.parametrize("method", [EDIT, Delta(lr=1e-3)])
def test_no_plan_is_an_error(small, method) -> None:
    with pytest.raises(PlanError, match="needs a plan"):
        adapt(small.model, method, None, seed=0)


@pytest.mark.parametrize("method", [EDIT, Delta(lr=1e-3)])
def test_a_target_that_matches_nothing_is_an_error(small, method) -> None:
    plan = EditPlan("me", (Target(Site(1, Part.attn), 2), Target(Site(9, Part.attn), 2)), 0)
    with pytest.raises((PlanError, AttributeError), match="9"):
        adapt(small.model, method, plan, seed=0)


def test_many_targets_all_take_an_adapter(bundled) -> None:
    """PEFT rewrites long lists of targets; layers 1 and 11 must not be mixed up."""
    sites = [Site(layer, part) for layer in range(1, 12) for part in (Part.attn, Part.mlp)]
    adapted = adapt(bundled.model, EDIT, plan_of(bundled.runner, sites, 2, "manual"), seed=0)
    named = {n.split(".lora_A")[0] for n in adapted.trainable() if ".lora_A" in n}
    assert named == {adapted.runner.layout.path(site) for site in sites}
    assert adapted.count() == adapted.plan.parameters


def test_mixed_ranks_have_one_scale(small) -> None:
    targets = (Target(Site(0, Part.attn), 1), Target(Site(1, Part.mlp), 4), Target(Site(2, Part.mlp), 3))
    adapted = adapt(small.model, Edit(lr=1e-3, alpha=6.0), EditPlan("me", targets, 0), seed=0)
    scales = [m.scaling["default"] for m in adapted.model.modules() if hasattr(m, "lora_A")]
    ranks = [m.r["default"] for m in adapted.model.modules() if hasattr(m, "lora_A")]
    assert ranks == [1, 4, 3]
    assert scales == pytest.approx([1.5] * 3)
    assert adapted.count() == 1 * 64 + 4 * 80 + 3 * 80


@pytest.mark.parametrize("name", ["edit", "delta", "lora", "full"])
def test_what_trains_is_float32_on_a_bfloat16_base(small, name) -> None:
    """AdamW's small steps vanish in bfloat16, and a baseline that cannot move is no baseline."""
    half = replace(small, model=copy.deepcopy(small.model).bfloat16())
    adapted = adapted_to(half, METHODS[name])
    assert {p.dtype for p in adapted.trainable().values()} == {torch.float32}
    assert not list(changed_elsewhere(adapted, half.model))
    assert half.model.dtype == torch.bfloat16
    ids = torch.tensor([[1, 300, 301, 302]])
    with torch.no_grad():
        gap = (adapted.model(ids).logits.float() - half.model(ids).logits.float()).abs().max()
    assert gap < 0.05 * half.model(ids).logits.float().abs().max(), "bfloat16's own rounding, and no more"


HEADS = [Site(0, Part.head, 2), Site(1, Part.head, 0), Site(1, Part.head, 3)]


def heads_of(lm: LanguageModel, rank: int = 2) -> AdaptedModel:
    return adapt(lm.model, replace(EDIT, alpha=8.0), plan_of(lm.runner, HEADS, rank, "manual"), seed=0)


def test_an_edit_of_heads_changes_their_columns_and_no_others(tiny, prompts, labels) -> None:
    adapted = heads_of(tiny)
    train(adapted, prompts, labels)
    assert adapted.count() == adapted.plan.parameters
    whole, base = merged(adapted), tiny.model
    moved = {}
    for layer in range(2):
        path = layout(base).path(Site(layer, Part.attn))
        after, before = (model.get_parameter(f"{path}.weight") for model in (whole, base))
        if "c_proj" in path:  # GPT-2 keeps inputs in rows
            after, before = after.T, before.T
        by_head = (after != before).unflatten(1, (4, -1)).any(2).any(0)
        moved[layer] = by_head.tolist()
        assert by_head.any()
    assert moved == {0: [False, False, True, False], 1: [True, False, False, True]}
    assert not list(changed_elsewhere(adapted, base))


def test_heads_of_a_layer_keep_a_delta_each_at_one_scale(small, prompts, labels) -> None:
    """Head 0's columns come from its own rows of A, as if it were edited alone with that rank."""
    adapted = heads_of(small, 2)
    train(adapted, prompts, labels)
    first, second = (adapted.model.model.layers[i].self_attn.o_proj for i in range(2))
    assert (first.r["default"], second.r["default"]) == (2, 4)
    assert first.scaling["default"] == second.scaling["default"] == 8.0 / 2
    free = second.lora_A["default"].weight.unflatten(1, (4, 8)).ne(0).all(2)
    assert free.tolist() == [[True, False, False, False]] * 2 + [[False, False, False, True]] * 2
    held = second.lora_A["default"].weight.unflatten(1, (4, 8))[free.logical_not()]
    assert not held.any()


def test_a_heads_delta_starts_as_wide_as_one_of_its_own_inputs(small) -> None:
    weight = heads_of(small, 8).model.model.layers[0].self_attn.o_proj.lora_A["default"].weight
    largest = float(weight.detach()[:, 16:24].abs().max())
    assert largest == pytest.approx(8**-0.5, rel=0.2)  # uniform up to 1 / sqrt(inputs)


def test_a_delta_of_single_heads_is_an_error(small) -> None:
    with pytest.raises(PlanError, match=r"head\.2@0: method delta trains whole matrices"):
        adapt(small.model, Delta(lr=1e-3), plan_of(small.runner, HEADS, 1, "manual"), seed=0)


def test_full_tells_what_the_vocabulary_costs(tokenizer, caplog) -> None:
    caplog.set_level("INFO", logger="absa_edit")
    for family, tables in (("gemma3", 1), ("llama", 2)):  # gemma's output layer is its embeddings
        lm = tiny_model(family, tokenizer)
        caplog.clear()
        weights = adapted_to(lm, Full(lr=1e-2)).count()
        words = tables * 8192 * 32
        assert f"full: {weights:,} weights train, {words:,} of them" in caplog.text
        assert "a vocabulary of 8,192" in caplog.text


@pytest.mark.parametrize(("family", "moved"), [("gemma3", "all"), ("llama", "some")])
def test_full_moves_rows_that_no_prompt_has_only_where_they_are_answers_too(
    family, moved, tokenizer, prompts, labels
) -> None:
    lm = tiny_model(family, tokenizer)
    adapted = adapted_to(lm, Full(lr=1e-3))
    before = lm.model.get_input_embeddings().weight
    train(adapted, prompts, labels, steps=1)
    changed = (adapted.model.get_input_embeddings().weight != before).any(1)
    met = {token for prompt in prompts[:2] for token in prompt.ids}
    assert set(changed.nonzero().flatten().tolist()) == (set(range(len(before))) if moved == "all" else met)
