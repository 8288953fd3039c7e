"""How far an estimate is said to be right: whole, reversed, and wrong in its heads alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from absa_edit.records import Part, Role, Trace
from absa_edit.tasks.absc import ABSC
from absa_edit.tracing.fidelity import agreement
from absa_edit.tracing.settings import TraceSettings
from absa_edit.tracing.tracer import trace_prompts


@pytest.fixture(scope="module")
def exact(small, prompts, labels) -> Trace:
    settings = TraceSettings(
        samples=1, filter=False, parts=[Part.block, Part.head], roles=[Role.before, Role.after, Role.last]
    )
    return trace_prompts(small, prompts[:5], labels, settings, ABSC.prompt(), seed=1)


def against(exact: Trace, estimated: Trace) -> tuple[float, float]:
    found = agreement(exact, estimated, draws=20, rng=np.random.default_rng(0))
    assert found.rank_correlation.n == len(exact.example_ids)
    return found.rank_correlation.value, found.overlap.value


def test_the_same_trace_agrees(exact) -> None:
    assert against(exact, exact) == pytest.approx((1, 1))


def test_a_trace_of_some_examples(exact) -> None:
    some = exact.of({exact.example_ids[3], exact.example_ids[1]})
    assert some.example_ids == (exact.example_ids[1], exact.example_ids[3]) and len(some.sentence_ids) == 2
    for name in ("clean", "restored", "restored_heads", "restored_heads_margin"):
        np.testing.assert_array_equal(getattr(some, name), getattr(exact, name)[[1, 3]])
    without = replace(exact, restored_heads=np.zeros(0)).of(exact.example_ids)
    assert without.restored_heads.shape == (0,) and without.clean.shape == exact.clean.shape


@pytest.mark.parametrize("alike", ["all cells", "one cell"])
def test_nothing_to_rank_is_no_agreement(exact, alike) -> None:
    none = np.zeros(0)
    if alike == "all cells":
        flat = replace(exact, restored=np.ones_like(exact.restored), restored_heads=none)
    else:
        flat = replace(exact, restored=exact.restored[:, :1, -1:, -1:], restored_heads=none)
    assert agreement(flat, flat, draws=20, rng=np.random.default_rng(0)) is None


def test_the_opposite_effects_disagree(exact) -> None:
    corrupted = exact.corrupted[:, None, None, None]
    restored = 2 * corrupted - exact.restored
    opposite = replace(exact, restored=restored, restored_heads=2 * corrupted - exact.restored_heads)
    rank, overlap = against(exact, opposite)
    assert rank == pytest.approx(-1) and overlap < 0.5


def test_a_small_table_is_held_to_its_stronger_half(exact) -> None:
    few = exact.restored[:, :, :1]
    small = replace(exact, roles=exact.roles[:1], restored=few, restored_heads=np.zeros(0))
    found = agreement(small, small, draws=20, rng=np.random.default_rng(0))
    assert (found.top, found.overlap.value, found.rank_correlation.value) == (2, 1, pytest.approx(1))


def test_heads_count_where_both_traces_have_them(exact) -> None:
    wrong = exact.restored_heads[:, :, ::-1, ::-1]
    rank, _ = against(exact, replace(exact, restored_heads=wrong))
    assert rank < 0.95
    assert against(exact, replace(exact, restored_heads=np.zeros(0))) == pytest.approx((1, 1))
