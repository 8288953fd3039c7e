"""Estimate all cells, run those that decide: what was run is exact, what was left is the estimate."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from absa_edit.model import precision
from absa_edit.model.settings import Dtype
from absa_edit.records import Part, Role
from absa_edit.tasks.absc import ABSC
from absa_edit.tracing.effects import head_effects, indirect_effects
from absa_edit.tracing.hybrid import deciding_cells, trace_auto
from absa_edit.tracing.settings import Corruption, Engine, TraceSettings
from absa_edit.tracing.tracer import trace_prompts


def test_deciding_cells_are_exact_and_the_others_estimated(small, prompts, labels, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(precision, "has_bfloat16_units", lambda device: True)
    settings = TraceSettings(
        engine=Engine.auto,
        samples=2,
        filter=False,
        parts=[Part.block, Part.head, Part.mlp],
        roles=[Role.after, Role.last],
    )
    trace = trace_auto(small, prompts[:4], labels, settings, ABSC.prompt(), seed=3, partial=tmp_path / "partial.jsonl")
    exact, estimated = (
        trace_prompts(small, prompts[:4], labels, replace(settings, engine=e), ABSC.prompt(), seed=3)
        for e in (Engine.exact, Engine.attribution)
    )
    run = np.zeros(trace.restored.shape[1:], dtype=bool)
    for part, role, layer in trace.exact_cells:
        run[trace.parts.index(Part(part)), trace.roles.index(Role(role)), layer] = True
    assert 0 < run.sum() < run.size
    np.testing.assert_allclose(trace.restored[:, run], exact.restored[:, run], atol=1e-6)
    np.testing.assert_allclose(
        indirect_effects(trace)[:, ~run], indirect_effects(estimated)[:, ~run], atol=1e-12, equal_nan=True
    )
    np.testing.assert_allclose(head_effects(trace), head_effects(estimated), atol=1e-12, equal_nan=True)
    np.testing.assert_allclose(trace.corrupted, exact.corrupted, atol=1e-6)
    assert (trace.dtype, estimated.dtype, exact.dtype) == ("bfloat16", "bfloat16", "float32")
    assert np.nanmax(np.abs(exact.restored - estimated.restored)) > 1e-3
    assert trace.engine == "auto" and trace.counts == exact.counts
    assert not list(tmp_path.iterdir())


def test_the_cells_that_are_run_are_not_rounded_whatever_the_estimates_are(small, prompts, labels) -> None:
    settings = TraceSettings(engine=Engine.auto, samples=1, filter=False, parts=[Part.mlp], dtype=Dtype.bfloat16)
    exactly = replace(settings, engine=Engine.exact, dtype=Dtype.float32)
    trace, exact = (
        run(small, prompts[:2], labels, s, ABSC.prompt(), seed=3)
        for run, s in ((trace_auto, settings), (trace_prompts, exactly))
    )
    part, role, layer = trace.exact_cells[0]
    cell = (slice(None), trace.parts.index(Part(part)), trace.roles.index(Role(role)), layer)
    np.testing.assert_allclose(trace.restored[cell], exact.restored[cell], atol=1e-6)


def test_one_engine_alone_is_not_auto(small, prompts, labels) -> None:
    with pytest.raises(ValueError, match="exact or attribution"):
        trace_prompts(small, prompts[:1], labels, TraceSettings(engine=Engine.auto), ABSC.prompt(), seed=3)


def test_the_examples_that_are_run_are_corrupted_as_all_of_them_were(bundled, prompts, labels) -> None:
    """The mean that stands in for the tokens is that of all prompts, though the filter keeps some of them."""
    settings = TraceSettings(corruption=Corruption.mean, parts=[Part.block], roles=[Role.last], engine=Engine.auto)
    trace = trace_auto(bundled, prompts, labels, settings, ABSC.prompt(), seed=3)
    exact = trace_prompts(bundled, prompts, labels, replace(settings, engine=Engine.exact), ABSC.prompt(), seed=3)
    assert len(trace.exact_cells) == trace.layers and 0 < trace.counts.kept < len(prompts)
    np.testing.assert_allclose(trace.restored, exact.restored, atol=1e-5)


def test_every_layer_has_its_strongest_role_among_the_deciding_cells(small, prompts, labels) -> None:
    settings = TraceSettings(engine=Engine.attribution, samples=1, filter=False, parts=[Part.attn])
    trace = trace_prompts(small, prompts[:4], labels, settings, ABSC.prompt(), seed=3)
    effects = np.zeros_like(trace.restored_margin)
    effects[:, 0, 1, :] = 1.0
    effects[:, 0, 2, 0] = 2.0
    weak = replace(trace, restored_margin=effects + trace.corrupted_margin[:, None, None, None])
    found = deciding_cells(weak, np.random.default_rng(0))
    np.testing.assert_array_equal(np.argwhere(found), [[0, 1, layer] for layer in range(1, trace.layers)] + [[0, 2, 0]])
