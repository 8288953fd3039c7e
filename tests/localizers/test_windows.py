"""Controls that nothing is measured for: windows, and plans moved as they are."""

from __future__ import annotations

from collections import Counter

import contexts
import numpy as np
import pytest

from absa_edit.errors import PlanError, SettingsError
from absa_edit.localizers.plan import every_layer, plan_of
from absa_edit.localizers.settings import LOCALIZERS, LocateSettings, Shape
from absa_edit.records import EditPlan, Part, Site

NAMES = ("first", "middle", "last", "random_window")


def chosen(bundled, kind: str, seed: int = 0, **settings: object) -> EditPlan:
    return contexts.locate(LocateSettings(kind=kind, **settings), bundled.model, None, rng=np.random.default_rng(seed))


def sites(plan: EditPlan) -> list[str]:
    return [str(t.site) for t in plan.targets]


def like(bundled, kind: str, plan: EditPlan, seed: int = 0, **how: bool) -> EditPlan:
    return LOCALIZERS[kind]().like(contexts.context(bundled.model), plan, np.random.default_rng(seed), **how)


@pytest.mark.parametrize(("kind", "width", "layers"), [("first", 4, (0, 1, 2, 3)), ("last", 3, (9, 10, 11)),
                                                      ("middle", 4, (4, 5, 6, 7)), ("middle", 3, (4, 5, 6)),
                                                      ("first", 12, tuple(range(12)))])  # fmt: skip
def test_fixed_windows(bundled, kind, width, layers) -> None:
    plan = chosen(bundled, kind, width=width, rank=3)
    assert (plan.layers(), len(plan.targets), plan.source) == (layers, 2 * width, kind)
    assert {t.rank for t in plan.targets} == {3}


def test_a_random_window_is_at_every_place_equally_often(bundled) -> None:
    ctx, settings = contexts.context(bundled.model), LocateSettings(kind="random_window", width=4)
    rng = np.random.default_rng(0)
    plans = [LOCALIZERS["random_window"]().plan(ctx, settings, rng) for _ in range(900)]
    firsts = Counter(plan.layers()[0] for plan in plans)
    assert {plan.layers() for plan in plans} == {tuple(range(i, i + 4)) for i in range(9)}
    assert max(firsts.values()) < 150 and min(firsts.values()) > 60  # 100 each, give or take 9.4


def test_a_plan_is_moved_as_it_is(bundled) -> None:
    plan = plan_of(bundled.runner, [Site(4, Part.attn), Site(5, Part.attn), Site(6, Part.mlp)], 2, "trace", 0.5)
    assert sites(like(bundled, "first", plan)) == ["attn@0", "attn@1", "mlp@2"]
    assert sites(like(bundled, "last", plan)) == ["attn@9", "attn@10", "mlp@11"]
    assert sites(like(bundled, "last", plan, layers_together=True)) == ["attn@8", "attn@9", "mlp@10"]
    drawn = [like(bundled, "random_window", plan, seed) for seed in range(80)]
    assert {p.layers()[0] for p in drawn} == {0, 1, 2, 3, 5, 6, 7, 8, 9}
    assert {(p.parameters, p.stability, p.source) for p in drawn} == {(plan.parameters, None, "random_window")}
    heads = plan_of(bundled.runner, [Site(2, Part.head, 1), Site(3, Part.head, 0)], 2, "trace")
    assert sites(like(bundled, "first", heads)) == ["head.1@0", "head.0@1"]


def test_no_other_place_is_an_error(bundled) -> None:
    with pytest.raises(PlanError, match=r"locate=random_window out"):
        like(bundled, "random_window", plan_of(bundled.runner, every_layer(bundled.runner, [Part.mlp]), 1, "all"))


@pytest.mark.parametrize("kind", NAMES)
def test_a_window_has_a_width_and_no_number_of_sites(bundled, kind) -> None:
    with pytest.raises(PlanError, match=r"locate\.width=13: the model has 12 layers"):
        LOCALIZERS[kind]().check(contexts.context(bundled.model), LocateSettings(kind=kind, width=13))
    with pytest.raises(SettingsError, match=r"locate\.sites=3"):
        LocateSettings(kind=kind, sites=3, shape=Shape.sites)
