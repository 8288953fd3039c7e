"""The localizer that the settings name."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from contexts import locate

from absa_edit.errors import PlanError, SettingsError
from absa_edit.localizers.by_hand import layers_in
from absa_edit.localizers.settings import LocateSettings, Shape
from absa_edit.records import EditPlan, Part
from absa_edit.storage import write_json


def run(small, seed: int = 0, **settings: object) -> EditPlan:
    return locate(LocateSettings(**settings), small.model, None, rng=np.random.default_rng(seed))


def sites(plan: EditPlan) -> list[str]:
    return [str(t.site) for t in plan.targets]


def test_manual(small) -> None:
    plan = run(small, kind="manual", layers=[2, 0], parts=[Part.mlp], rank=5)
    assert sites(plan) == ["mlp@0", "mlp@2"]
    assert plan.parameters == 2 * 5 * 80
    assert (plan.source, plan.stability) == ("manual", None)


@pytest.mark.parametrize(("layers", "edited"), [(12, [4, 5]), (18, [6, 7, 8]), (30, range(9, 15)), (32, range(10, 16))])
def test_a_share_of_the_depth_is_a_window_of_any_model(layers, edited) -> None:
    """arXiv 2503.15117 edits layers 10 to 15 of 32."""
    assert list(layers_in(0.3125, 0.5, layers)) == list(edited)
    assert list(layers_in(0.0, 1.0, layers)) == list(range(layers))


def test_depth(small) -> None:
    plan = run(small, kind="depth", depth=[0.5, 1.0], parts=[Part.attn])
    assert (sites(plan), plan.source) == (["attn@1", "attn@2"], "depth")
    with pytest.raises(PlanError, match=r"no middle of the model's 3 layers lies there"):
        run(small, kind="depth", depth=[0.2, 0.4])


def test_all(small) -> None:
    assert sites(run(small, kind="all")) == ["attn@0", "mlp@0", "attn@1", "mlp@1", "attn@2", "mlp@2"]


def test_file(small, tmp_path) -> None:
    plan = run(small, kind="manual", layers=[1])
    write_json(plan, tmp_path / "plan.json")
    found = run(small, kind="file", plan=str(tmp_path / "plan.json"))
    assert found == replace(plan, source="file")


def test_random_is_as_large_as_a_window(small) -> None:
    plans = [run(small, seed, kind="random", width=2) for seed in range(10)]
    assert {len(p.targets) for p in plans} == {4}
    assert len({p.targets for p in plans}) > 1
    assert {p.source for p in plans} == {"random"}


def test_heads_by_chance_and_by_hand(small) -> None:
    assert sites(run(small, kind="manual", layers=[2], parts=[Part.head])) == [f"head.{i}@2" for i in range(4)]
    plans = [run(small, seed, kind="random", parts=[Part.head], shape=Shape.sites, sites=3) for seed in range(10)]
    assert {len(p.targets) for p in plans} == {3}
    assert len({p.targets for p in plans}) > 5
    with pytest.raises(PlanError, match=r"locate\.sites=13: the model has 12"):
        run(small, kind="random", parts=[Part.head], shape=Shape.sites, sites=13)


def test_trace_without_a_trace_is_an_error(small) -> None:
    with pytest.raises(PlanError, match="needs a trace"):
        run(small)


@pytest.mark.parametrize(("layers", "named"), [([7], "attn@7"), ([1, 1], "attn@1: stands in the plan twice")])
def test_errors_name_the_site(small, layers, named) -> None:
    with pytest.raises(PlanError, match=named):
        run(small, kind="manual", layers=layers)


@pytest.mark.parametrize(
    "settings",
    [
        {"kind": "manual"},
        {"layers": [1]},
        {"plan": "p.json"},
        {"kind": "file"},
        {"rank": 0},
        {"parts": []},
        {"parts": [Part.head]},
        {"parts": [Part.head, Part.mlp], "shape": Shape.sites},
        {"sites": 3},
        {"sites": 0, "shape": Shape.sites},
    ],
)
def test_settings_that_do_not_go_together(settings) -> None:
    with pytest.raises(SettingsError, match=r"locate\."):
        LocateSettings(**settings)
