"""Saving, putting back and grouping what trains; dropout only where weights train."""

from __future__ import annotations

import pytest
import torch
from contexts import adapt
from torch import nn

from absa_edit.localizers.plan import plan_of
from absa_edit.methods.full import Full
from absa_edit.methods.low_rank_edit import Edit
from absa_edit.records import Part, Site


@pytest.fixture
def adapted(small):
    method = Edit(lr=1e-3, representation=True, representation_lr=5e-2, dropout=0.1)
    return adapt(small.model, method, plan_of(small.runner, [Site(1, Part.mlp)], 2, "manual"), seed=0)


def test_saved_parameters_come_back(adapted) -> None:
    saved = {n: t.detach().clone() for n, t in adapted.trainable().items()}
    with torch.no_grad():
        for parameter in adapted.trainable().values():
            parameter.add_(1.0)
    adapted.load_trained(saved)
    assert all(torch.equal(saved[n], t) for n, t in adapted.trainable().items())


@pytest.mark.parametrize("change", ["missing", "extra"])
def test_other_parameters_are_an_error(adapted, change) -> None:
    state = dict(adapted.trainable())
    if change == "missing":
        state.popitem()
    else:
        state["more"] = torch.zeros(1)
    with pytest.raises(KeyError, match="do not match"):
        adapted.load_trained(state)


def test_groups_hold_every_parameter_once_at_its_rate(adapted) -> None:
    groups = {g["lr"]: g["params"] for g in adapted.parameter_groups()}
    assert set(groups) == {1e-3, 5e-2}
    every = [id(p) for params in groups.values() for p in params]
    assert sorted(every) == sorted(map(id, adapted.trainable().values()))
    names = {id(p): n for n, p in adapted.trainable().items()}
    assert all("lora_" in names[id(p)] for p in groups[1e-3])
    assert all(names[id(p)].startswith("representation.") for p in groups[5e-2])


def test_dropout_acts_only_where_weights_train(adapted) -> None:
    adapted.modes(training=True)
    training = {n for n, m in adapted.model.named_modules() if m.training}
    assert training == {"model.layers.1.mlp.down_proj.lora_dropout.default"}
    adapted.modes(training=False)
    assert not any(m.training for m in adapted.model.modules())


def test_the_full_model_trains_with_its_own_dropout(small) -> None:
    adapted = adapt(small.model, Full(lr=1e-3), None, seed=0)
    adapted.modes(training=True)
    assert all(m.training for m in adapted.model.modules() if not isinstance(m, nn.ModuleList))
    adapted.modes(training=False)
    assert not any(m.training for m in adapted.model.modules())
