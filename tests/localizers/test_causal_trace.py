"""The traced window and the strongest sites, on traces made by hand."""

from __future__ import annotations

from dataclasses import replace
from unittest.mock import patch

import contexts
import numpy as np
import pytest

from absa_edit.errors import PlanError
from absa_edit.localizers import base
from absa_edit.localizers.base import window_width
from absa_edit.localizers.settings import LocateSettings, Shape
from absa_edit.records import EditPlan, Part, Role, Trace, TraceCounts

PARTS = (Part.block, Part.attn, Part.mlp)
ROLES = (Role.aspect, Role.last)


def trace(restored: np.ndarray, sentences: list[str] | None = None) -> Trace:
    """A trace of a three-layer model with these restored probabilities (example part role layer)."""
    n = len(restored)
    ids = tuple(map(str, range(n)))
    return Trace(
        "exact", "noise", "sentence", 0.1, 3, 3, PARTS, ROLES, restored.shape[-1], TraceCounts(n, 0, 0, n), 1.0,
        ids, tuple(sentences or ids), np.full(n, 0.9), np.full(n, 0.1), restored, np.ones(n), -np.ones(n), restored,
    )  # fmt: skip


def flat(n: int = 20) -> np.ndarray:
    """No effect anywhere."""
    return np.full((n, 3, 2, 3), 0.1)


def sites(plan: EditPlan) -> list[str]:
    return [str(t.site) for t in plan.targets]


def traced_plan(made: Trace, model, settings: LocateSettings, *, draws: int, rng: np.random.Generator) -> EditPlan:
    """The plan of a trace, with as many resamples."""
    with patch.object(base, "DRAWS", draws):
        return contexts.locate(settings, model, made, rng=rng)


def locate(small, restored: np.ndarray, **settings: object) -> EditPlan:
    settings = {"width": 1, "rank": 2, **settings}
    return traced_plan(trace(restored), small.model, LocateSettings(**settings), draws=50, rng=np.random.default_rng(0))


@pytest.mark.parametrize("layer", [0, 1, 2])
@pytest.mark.parametrize("role", [0, 1])
def test_window_goes_where_the_effect_is(small, layer, role) -> None:
    restored = flat()
    restored[:, 2, role, layer] = 0.6
    plan = locate(small, restored)
    assert sites(plan) == [f"attn@{layer}", f"mlp@{layer}"]
    assert (plan.source, plan.stability) == ("trace", 1.0)
    assert {t.rank for t in plan.targets} == {2}


def test_window_is_the_largest_sum_over_its_layers_and_parts(small) -> None:
    restored = flat()
    restored[:, 1, 0] = [0.5, 0.1, 0.4]  # attn alone would start at either end
    restored[:, 2, 1] = [0.1, 0.3, 0.5]
    assert sites(locate(small, restored, width=2)) == ["attn@1", "mlp@1", "attn@2", "mlp@2"]


def test_block_effects_do_not_count(small) -> None:
    restored = flat()
    restored[:, 0, 0, 0] = 0.9
    restored[:, 1, 0, 2] = 0.2
    assert sites(locate(small, restored)) == ["attn@2", "mlp@2"]


def test_negative_effects_count_as_none(small) -> None:
    restored = flat()
    restored[:, 1, :, 0], restored[:, 2, 0, 0] = 0.0, 0.2  # attn would outweigh mlp in layer 0
    restored[:, 1, 0, 1] = 0.15
    assert sites(locate(small, restored)) == ["attn@0", "mlp@0"]


def test_sites_are_the_strongest_anywhere(small) -> None:
    restored = flat()
    restored[:, 1, 0, 0], restored[:, 2, 1, 2], restored[:, 2, 0, 1] = 0.5, 0.4, 0.3
    assert sites(locate(small, restored, shape=Shape.sites)) == ["attn@0", "mlp@2"]
    assert sites(locate(small, restored, shape=Shape.sites, parts=[Part.mlp])) == ["mlp@2"]


def test_heads_are_the_strongest_anywhere(small) -> None:
    made = trace(flat())
    heads = np.full((20, 2, 3, 4), 0.1)  # example role layer head
    heads[:, 0, 2, 1], heads[:, 1, 0, 3], heads[:, 1, 2, 0] = 0.5, 0.4, 0.3
    made = replace(made, restored_heads=heads, restored_heads_margin=heads)
    settings = LocateSettings(parts=[Part.head], shape=Shape.sites, sites=2, rank=1)
    plan = traced_plan(made, small.model, settings, draws=50, rng=np.random.default_rng(0))
    assert sites(plan) == ["head.3@0", "head.1@2"]
    assert plan.stability == 1.0
    with pytest.raises(PlanError, match=r"auto runs no head exactly"):
        traced_plan(replace(made, engine="auto"), small.model, settings, draws=5, rng=np.random.default_rng(0))
    with pytest.raises(PlanError, match=r"needs head traced"):
        traced_plan(trace(flat()), small.model, settings, draws=5, rng=np.random.default_rng(0))


def test_anti_takes_where_the_effect_is_smallest(small) -> None:
    restored = flat()
    restored[:, 1, 0], restored[:, 2, 1] = [0.5, 0.15, 0.4], [0.2, 0.1, 0.1]
    assert sites(locate(small, restored, kind="anti")) == ["attn@1", "mlp@1"]
    assert sites(locate(small, restored, kind="anti", width=2)) == ["attn@1", "mlp@1", "attn@2", "mlp@2"]
    plan = locate(small, restored, kind="anti", shape=Shape.sites)
    assert sites(plan) == ["mlp@1", "mlp@2"] and (plan.source, plan.stability) == ("anti", 1.0)


def test_anti_needs_the_trace(small) -> None:
    with pytest.raises(PlanError, match="locate=anti needs a trace"):
        contexts.locate(LocateSettings(kind="anti"), small.model, None, rng=np.random.default_rng(0))


def test_window_and_sites_cost_the_same(small) -> None:
    restored = flat() + np.random.default_rng(1).random((20, 3, 2, 3))
    window, strongest = (locate(small, restored, width=2, shape=s, parts=[Part.mlp]) for s in Shape)
    assert len(window.targets) == len(strongest.targets) == 2
    assert window.parameters == strongest.parameters


def test_stability_falls_when_examples_disagree(small) -> None:
    rng = np.random.default_rng(0)
    restored = flat()
    restored[np.arange(20), 1, 0, rng.integers(0, 3, 20)] = 0.9
    plan = locate(small, restored)
    assert plan.stability is not None and 0.2 < plan.stability < 0.95
    assert plan == locate(small, restored)


def test_stability_resamples_sentences(small) -> None:
    """One sentence with all the effect: in the resamples without it the plan is another."""
    restored = flat()
    restored[:2, 1, 0, 2] = 0.9
    settings = LocateSettings(width=1, rank=2)
    loose = trace(restored, ["a", "a"] + [f"s{i}" for i in range(18)])
    plan = traced_plan(loose, small.model, settings, draws=4000, rng=np.random.default_rng(0))
    absent = (1 - 1 / 19) ** 19  # a resample without sentence `a` chooses the first window: overlap 0
    assert plan.stability == pytest.approx(1 - absent, abs=0.03)


def test_a_role_that_no_example_has_is_left_out(small) -> None:
    restored = flat()
    restored[:, :, 0] = np.nan
    restored[:, 1, 1, 2] = 0.5
    assert sites(locate(small, restored)) == ["attn@2", "mlp@2"]


def test_a_role_that_few_examples_have(small) -> None:
    """Resamples without any of them are no error."""
    restored = flat()[:, :, :1]
    restored[1:] = np.nan
    restored[0, 1, 0, 1] = 0.5
    made = trace(np.concatenate([restored, restored * np.nan], 2))
    plan = traced_plan(made, small.model, LocateSettings(width=1), draws=50, rng=np.random.default_rng(0))
    assert sites(plan) == ["attn@1", "mlp@1"]


def test_a_part_that_was_not_traced_is_an_error(small) -> None:
    made = trace(flat())
    made = replace(made, parts=(Part.block, Part.attn), restored=made.restored[:, :2])
    with pytest.raises(PlanError, match=r"needs mlp traced.*trace\.parts"):
        traced_plan(made, small.model, LocateSettings(), draws=5, rng=np.random.default_rng(0))


@pytest.mark.parametrize(("layers", "width"), [(1, 1), (3, 1), (12, 4), (16, 5), (32, 11)])
def test_default_window_is_a_third(layers, width) -> None:
    assert window_width(LocateSettings(), layers) == width


@pytest.mark.parametrize("width", [0, -1, 4])
def test_width_out_of_range(width) -> None:
    with pytest.raises(PlanError, match=rf"locate\.width={width}: the model has 3 layers"):
        window_width(LocateSettings(width=width), 3)
