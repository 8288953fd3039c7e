"""Averages, peaks and depth of traces made by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from absa_edit.records import Part, Role, Trace, TraceCounts
from absa_edit.tracing.effects import (
    indirect_effects,
    layer_profile,
    mean_effect,
    trace_effects,
)

PARTS = (Part.attn, Part.mlp)
ROLES = (Role.before, Role.last)


def made(restored: np.ndarray, corrupted: np.ndarray | None = None, sentences: list[str] | None = None) -> Trace:
    n = len(restored)
    ids = tuple(map(str, range(n)))
    low = np.full(n, 0.1) if corrupted is None else corrupted
    return Trace(
        "exact", "noise", "sentence", 0.1, 3, 3, PARTS, ROLES, restored.shape[-1], TraceCounts(n + 2, 1, 1, n), 1.5,
        ids, tuple(sentences or ids), np.full(n, 0.9), low, restored, np.ones(n), -np.ones(n), restored,
    )  # fmt: skip


@pytest.fixture
def random_trace(rng) -> Trace:
    restored = rng.random((30, 2, 2, 6))
    restored[::3, :, 0] = np.nan  # every third example has nothing before its aspect
    return made(restored, rng.random(30) * 0.2)


def test_indirect_effect_is_restored_minus_corrupted(random_trace) -> None:
    effects = indirect_effects(random_trace)
    assert effects[4, 1, 0, 2] == random_trace.restored[4, 1, 0, 2] - random_trace.corrupted[4]
    assert np.isnan(effects[3, :, 0]).all() and not np.isnan(effects[3, :, 1]).any()


def test_averages_leave_out_examples_without_the_role(random_trace, rng) -> None:
    effects = trace_effects(random_trace, draws=300, rng=rng).parts
    has = [i for i in range(30) if i % 3]
    expected = np.mean([random_trace.restored[i, 1, 0, 5] - random_trace.corrupted[i] for i in has])
    assert effects.aie[1, 0, 5] == pytest.approx(expected)
    assert effects.n.tolist() == [20, 30]
    assert effects.total.value == pytest.approx(np.mean(0.9 - random_trace.corrupted))
    assert effects.total.n == 30
    assert (effects.low < effects.aie).all() and (effects.aie < effects.high).all()


def test_intervals_cover_the_spread_of_the_mean(rng) -> None:
    restored = 0.5 + 0.1 * rng.standard_normal((400, 2, 2, 3))
    effects = trace_effects(made(restored), draws=2000, rng=rng).parts
    np.testing.assert_allclose(effects.high - effects.low, 2 * 1.96 * 0.1 / 20, rtol=0.15)


def test_intervals_resample_sentences(rng) -> None:
    """Ten copies of each example in one sentence: as wide as the ten-fold smaller set."""
    few = rng.random((30, 2, 2, 3))
    many = made(np.repeat(few, 10, 0), sentences=[f"s{i // 10}" for i in range(300)])
    a = trace_effects(made(few), draws=4000, rng=rng).parts
    b = trace_effects(many, draws=4000, rng=rng).parts
    np.testing.assert_allclose(b.high - b.low, a.high - a.low, rtol=0.1)


def test_a_role_that_no_example_has_is_nan(rng) -> None:
    restored = rng.random((8, 2, 2, 6))
    restored[:, :, 0] = np.nan
    effects = trace_effects(made(restored), draws=50, rng=rng).parts
    assert np.isnan(effects.aie[:, 0]).all() and np.isnan(effects.low[:, 0]).all()
    assert effects.n.tolist() == [0, 8]
    assert not np.isnan(effects.aie[:, 1]).any() and not np.isnan(effects.high[:, 1]).any()
    assert trace_effects(made(restored), draws=50, rng=rng).summary.peak.role is Role.last


def test_mean_effect_without_gaps_is_the_mean(rng) -> None:
    values = rng.random((7, 2, 3))
    np.testing.assert_allclose(mean_effect(values), values.mean(0))


def test_layer_profile_is_the_largest_role_and_never_negative() -> None:
    mean = np.array([[0.1, -0.2, np.nan, np.nan], [0.3, -0.1, 0.2, np.nan]])
    assert layer_profile(mean).tolist() == [0.3, 0.0, 0.2, 0.0]
    assert layer_profile(np.stack([mean, 2 * mean])).shape == (2, 4)


def test_summary_finds_the_peak_and_where_the_effect_sits(rng) -> None:
    restored = np.full((20, 2, 2, 6), 0.1)
    restored[:, 1, 1, 2] = 0.7
    restored[:, 1, 1, 3] = 0.4
    restored[:, 0, 0, 5] = 0.3
    summary = trace_effects(made(restored), draws=100, rng=rng).summary
    assert (summary.peak.part, summary.peak.layer, summary.peak.role) == (Part.mlp, 2, Role.last)
    assert (summary.peak.effect.value, summary.peak.effect.n) == (pytest.approx(0.6), 20)
    assert summary.total_effect.value == pytest.approx(0.8)
    mlp, attn = summary.depth["mlp"], summary.depth["attn"]
    assert mlp.peak_layer.value == pytest.approx(2 / 5)
    assert mlp.centre_of_mass.value == pytest.approx((0.6 * 2 + 0.3 * 3) / 0.9 / 5)
    assert mlp.middle_third_share.value == pytest.approx(1.0)  # layers 2 and 3 of 6
    assert attn.peak_layer.value == 1.0 and attn.middle_third_share.value == 0.0
    assert summary.middle_third_share == {"attn": 0.0, "mlp": mlp.middle_third_share.value}


@pytest.mark.parametrize(("layers", "middle"), [(3, {1}), (6, {2, 3}), (12, {4, 5, 6, 7}), (4, {2}), (5, {2, 3})])
def test_middle_third(rng, layers, middle) -> None:
    for layer in range(layers):
        restored = np.full((4, 2, 2, layers), 0.1)
        restored[:, :, :, layer] = 0.5
        share = trace_effects(made(restored), draws=10, rng=rng).summary.depth["attn"].middle_third_share.value
        assert share == (1.0 if layer in middle else 0.0)


def test_no_effect_anywhere_is_no_error(rng) -> None:
    summary = trace_effects(made(np.full((5, 2, 2, 3), 0.1)), draws=20, rng=rng).summary
    assert summary.peak.effect.value == 0.0
    assert summary.depth["attn"].middle_third_share.value == 0.0


def test_one_example_that_lacks_a_role(rng) -> None:
    restored = np.full((2, 2, 2, 3), 0.4)
    restored[0, :, 0] = np.nan
    effects = trace_effects(made(restored), draws=50, rng=rng).parts  # some resamples have no example with the role
    assert effects.aie[0, 0, 0] == pytest.approx(0.3)
    assert effects.low[0, 0, 0] == pytest.approx(0.3) == effects.high[0, 0, 0]


def test_heads_are_averaged_one_table_a_head(random_trace, rng) -> None:
    assert trace_effects(random_trace, draws=10, rng=rng).heads is None
    heads = rng.random((30, 2, 6, 4))  # example role layer head
    heads[::3, 0] = np.nan
    effects = trace_effects(replace(random_trace, restored_heads=heads), draws=200, rng=rng).heads
    assert effects is not None and effects.aie.shape == (4, 2, 6) and effects.n.tolist() == [20, 30]
    assert effects.aie[3, 1, 5] == pytest.approx(np.mean(heads[:, 1, 5, 3] - random_trace.corrupted))
    assert (effects.low < effects.aie).all() and (effects.aie < effects.high).all()


def test_one_bootstrap_serves_parts_heads_and_summary(random_trace, rng) -> None:
    """Heads that are copies of a part have its intervals, and so has the peak."""
    trace = replace(random_trace, restored_heads=random_trace.restored[:, 1, :, :, None])
    effects = trace_effects(trace, draws=100, rng=rng)
    assert effects.heads is not None and effects.heads.total == effects.parts.total == effects.summary.total_effect
    for name in ("aie", "low", "high"):
        np.testing.assert_array_equal(getattr(effects.heads, name)[0], getattr(effects.parts, name)[1])
    peak = effects.summary.peak
    at = trace.parts.index(peak.part), trace.roles.index(peak.role), peak.layer
    assert (peak.effect.low, peak.effect.high) == pytest.approx((effects.parts.low[at], effects.parts.high[at]))
