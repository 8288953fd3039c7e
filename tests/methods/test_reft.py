"""LoReFT: its formula, where it acts, and that its rows stay orthonormal."""

from __future__ import annotations

import pytest
import torch
from contexts import adapt

from absa_edit.errors import DataError
from absa_edit.localizers.plan import plan_of
from absa_edit.methods.low_rank_edit import Edit
from absa_edit.methods.reft import LoReFT, Place, RepresentationEdit
from absa_edit.records import Part, Role, Site


def moved(edit: torch.nn.Module, seed: int = 0) -> None:
    """Random weights in place of the first ones."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in edit.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator))


def orthonormal(edit: LoReFT) -> None:
    rows = edit.rotation()
    torch.testing.assert_close(rows @ rows.T, torch.eye(len(rows)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("rank", [1, 4, 32])
def test_untrained_changes_nothing(rank) -> None:
    torch.manual_seed(0)
    edit, hidden = LoReFT(32, rank), torch.randn(5, 32)
    orthonormal(edit)
    torch.testing.assert_close(edit(hidden), hidden, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("rank", [1, 4, 32])
def test_formula(rank) -> None:
    torch.manual_seed(0)
    edit, hidden = LoReFT(32, rank), torch.randn(5, 32)
    moved(edit)
    r, w, b = edit.rotation(), edit.source.weight, edit.source.bias
    expected = torch.stack([h + r.T @ (w @ h + b - r @ h) for h in hidden])
    torch.testing.assert_close(edit(hidden), expected, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(edit(hidden), hidden, atol=0.1)
    torch.testing.assert_close(edit(hidden) @ r.T, hidden @ w.T + b, atol=1e-4, rtol=1e-4)  # what the edit is for


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_rows_stay_orthonormal_while_training(small, weight_decay) -> None:
    plan = plan_of(small.runner, [Site(1, Part.mlp)], 2, "manual")
    adapted = adapt(small.model, Edit(lr=1e-2, representation=True, representation_lr=0.1), plan, seed=0)
    edit = adapted.representation.edits[0]
    first = edit.rotation().detach().clone()
    optimizer = torch.optim.AdamW(adapted.parameter_groups(), weight_decay=weight_decay)
    hidden = torch.randn(8, 32, generator=torch.Generator().manual_seed(0))
    for _ in range(30):
        (edit(hidden) - 1).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    orthonormal(edit)
    assert not torch.allclose(edit.rotation(), first, atol=0.1)


def test_runs_in_float32_under_autocast() -> None:
    torch.manual_seed(0)
    edit, hidden = LoReFT(32, 4), torch.randn(5, 32)
    moved(edit)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(edit(hidden), edit(hidden.clone()))
        inside = edit(hidden)
    assert torch.equal(inside, edit(hidden))
    assert edit(hidden.bfloat16()).dtype is torch.bfloat16


@pytest.mark.parametrize("position", [Role.aspect_again, Role.aspect, Role.last])
def test_acts_at_the_last_token_with_the_role(prompts, position) -> None:
    edit = RepresentationEdit([Place((1,), position)], 32, 4)
    assert [edit.at(p) for p in prompts] == [(p.positions(position)[-1],) for p in prompts]


def test_a_prompt_without_the_position_is_an_error(prompts) -> None:
    edit = RepresentationEdit([Place((1,), Role.before)], 32, 4)
    without = next(p for p in prompts if not p.positions(Role.before))
    with pytest.raises(DataError, match=rf"example {without.example.id}: no token has the role before"):
        edit.at(without)
