"""The random control: same budget, other sites, drawn by the seed."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from contexts import adapt
from families import sites_in

from absa_edit.errors import PlanError
from absa_edit.localizers.plan import every_layer, plan_of
from absa_edit.localizers.random_control import random_plan
from absa_edit.methods.low_rank_edit import Edit
from absa_edit.records import Part, Site

SITES = [Site(1, Part.attn), Site(1, Part.mlp)]


def test_same_budget_but_never_the_same_plan(tiny) -> None:
    sites = sites_in(tiny.model, SITES)
    like = plan_of(tiny.runner, sites, 3, "trace")
    for seed in range(20):
        plan = random_plan(like, tiny.runner, rng=np.random.default_rng(seed))
        assert plan.parameters == like.parameters
        parts = [Counter((t.site.part, t.rank) for t in p.targets) for p in (plan, like)]
        assert parts[0] == parts[1]
        assert {t.site for t in plan.targets} != set(sites)
        assert plan.source == "random"


def test_seeds_differ_and_repeat(small) -> None:
    like = plan_of(small.runner, SITES, 3, "trace")
    plans = [random_plan(like, small.runner, rng=np.random.default_rng(seed)) for seed in range(60)]
    assert len({p.targets for p in plans}) == 8  # 3 x 3 placements without the plan itself
    assert plans[4] == random_plan(like, small.runner, rng=np.random.default_rng(4))


def test_one_part_may_cover_all_layers(small) -> None:
    like = plan_of(small.runner, [*every_layer(small.runner, [Part.attn]), Site(0, Part.mlp)], 1, "manual")
    plan = random_plan(like, small.runner, rng=np.random.default_rng(0))
    assert {str(t.site) for t in plan.targets} - {"attn@0", "attn@1", "attn@2"} <= {"mlp@1", "mlp@2"}
    assert len(plan.targets) == 4


def test_no_other_choice_is_an_error(small) -> None:
    like = plan_of(small.runner, every_layer(small.runner, [Part.attn, Part.mlp]), 1, "all")
    with pytest.raises(PlanError, match="all layers"):
        random_plan(like, small.runner, rng=np.random.default_rng(0))
    below = plan_of(small.runner, [Site(0, Part.attn), Site(1, Part.mlp)], 1, "manual")
    with pytest.raises(PlanError, match="all layers"):
        random_plan(below, small.runner, rng=np.random.default_rng(0), layers_together=True)


def test_layers_together_have_an_edit_of_the_representation_as_large(bundled) -> None:
    like = plan_of(bundled.runner, [Site(4, Part.attn), Site(4, Part.mlp), Site(5, Part.attn)], 4, "trace")
    method = Edit(lr=1e-2, representation=True)
    wanted = adapt(bundled.model, method, like, seed=0).count()
    plans = [random_plan(like, bundled.runner, rng=np.random.default_rng(s), layers_together=True) for s in range(8)]
    assert len({plan.targets for plan in plans}) > 4
    for plan in plans:
        parts = sorted(Counter(t.site.layer for t in plan.targets).values())
        assert parts == [1, 2] and max(plan.layers()) < 11
    assert adapt(bundled.model, method, plans[0], seed=0).count() == wanted


def test_mixed_ranks_are_an_error(small) -> None:
    like = plan_of(small.runner, SITES, 3, "trace")
    like = replace(like, targets=(like.targets[0], replace(like.targets[1], rank=2)))
    with pytest.raises(PlanError, match=r"one rank.*\[2, 3\]"):
        random_plan(like, small.runner, rng=np.random.default_rng(0))


def test_heads_beside_whole_layers(small) -> None:
    like = plan_of(small.runner, [Site(0, Part.attn), Site(2, Part.head, 1), Site(2, Part.head, 3)], 2, "file")
    for seed in range(40):
        plan = random_plan(like, small.runner, rng=np.random.default_rng(seed))
        assert plan.parameters == like.parameters
        assert Counter(t.site.part for t in plan.targets) == {Part.attn: 1, Part.head: 2}
