"""Attribution against the exact engine: the same for small corruptions, and in rank on the bundled model."""

from __future__ import annotations

import copy
import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from absa_edit.errors import DataError
from absa_edit.model.block_runner import BlockRunner
from absa_edit.model.loading import LanguageModel
from absa_edit.model.precision import of_trace
from absa_edit.model.settings import Dtype
from absa_edit.records import Part, Role, Trace
from absa_edit.tasks.absc import ABSC
from absa_edit.tracing.attribution_patching import Inputs, SharedPrefix, run
from absa_edit.tracing.exact_patching import cells
from absa_edit.tracing.settings import Engine, Tokens, TraceSettings
from absa_edit.tracing.tracer import trace_prompts

ENGINES = (Engine.exact, Engine.attribution)
EVERY = [Part.block, Part.attn, Part.mlp, Part.head]


def traced(lm: LanguageModel, prompts: list, labels: dict, engine: Engine, **settings: object) -> Trace:
    parts = [*filter(BlockRunner(lm.model).has, EVERY)]  # experts have no one projection of an MLP
    plain = {"samples": 2, "filter": False, "parts": parts, "dtype": Dtype.float32}
    asked = TraceSettings(engine=engine, **(plain | settings))
    return trace_prompts(lm, prompts, labels, asked, ABSC.prompt(), seed=3)


def effects(trace: Trace, name: str) -> np.ndarray:
    """What restoring adds to the corrupted run, by example and cell."""
    base = trace.corrupted_margin if name.endswith("margin") else trace.corrupted
    found = getattr(trace, name)
    return found - base.reshape(-1, *(1,) * (found.ndim - 1))


def test_equals_the_exact_engine_where_the_model_is_as_good_as_linear(tiny, prompts, labels) -> None:
    exact, estimated = (traced(tiny, prompts[:2], labels, e, noise=0.03, window=1, steps=4) for e in ENGINES)
    assert (exact.engine, estimated.engine) == ("exact", "attribution")
    np.testing.assert_allclose(estimated.clean, exact.clean, atol=1e-5)
    np.testing.assert_allclose(estimated.corrupted, exact.corrupted, atol=1e-5)
    grids = {part: [effects(t, "restored")[:, n] for t in (exact, estimated)] for n, part in enumerate(exact.parts)}
    grids[Part.head] = [effects(t, "restored_heads") for t in (exact, estimated)]
    for part, (effect, estimate) in grids.items():
        assert (np.isnan(effect) == np.isnan(estimate)).all()
        known, largest = ~np.isnan(effect), np.nanmax(np.abs(effect))
        assert largest > 3e-5
        np.testing.assert_allclose(estimate[known], effect[known], rtol=0, atol=0.05 * largest + 2e-6, err_msg=part)
        assert np.corrcoef(effect[known], estimate[known])[0, 1] > 0.99


@pytest.mark.every_family
@torch.no_grad()
def test_what_is_restored_is_what_the_residual_stream_gets(tiny, prompts) -> None:
    """Also where a norm follows attention and MLP, which makes the changes of their projections others."""
    runner = BlockRunner(tiny.model)
    if not runner.has(Part.mlp):
        pytest.skip("experts have no one projection of an MLP")
    embeds = runner.embed(torch.tensor([prompts[0].ids]))
    inputs = Inputs.of([embeds], embeds.shape[1])
    prefix = SharedPrefix(embeds[0, :0], (), runner.reach(embeds.shape[1]))
    states = run(runner, inputs, prefix, [Part.block, Part.attn, Part.mlp], [5, 6]).states
    for layer in range(1, runner.layers - 1):
        step = states[Part.block, layer] - states[Part.block, layer - 1]
        added = sum(states[part, layer].reshape(step.shape) for part in (Part.attn, Part.mlp))
        torch.testing.assert_close(added, step, atol=2e-4, rtol=1e-4)


def test_a_window_is_the_sum_of_its_layers(small, prompts, labels) -> None:
    one, three = (traced(small, prompts[:2], labels, Engine.attribution, window=n) for n in (1, 3))
    single, window = effects(one, "restored"), effects(three, "restored")
    for part in (Part.attn, Part.mlp):
        at = one.parts.index(part)
        for cell in cells([part], one.layers, 3):
            layers = single[:, at, :, cell.start : cell.stop]
            np.testing.assert_allclose(window[:, at, :, cell.layer], layers.sum(-1), atol=1e-6)
    at = one.parts.index(Part.block)
    np.testing.assert_allclose(window[:, at], single[:, at], atol=1e-6)


def test_an_estimate_runs_no_more_samples_than_it_takes_gradients(small, prompts, labels) -> None:
    few, many = (traced(small, prompts, labels, Engine.attribution, samples=n, steps=2) for n in (2, 7))
    assert few.samples == many.samples == 2
    np.testing.assert_allclose(many.restored, few.restored, atol=1e-6)


def test_batches_do_not_change_the_estimate(small, prompts, labels) -> None:
    one, many = (traced(small, prompts, labels, Engine.attribution, batch_tokens=n) for n in (1, 10**6))
    np.testing.assert_allclose(one.restored, many.restored, atol=1e-5)


def test_what_prompts_begin_with_is_computed_once_and_changes_nothing(tiny, prompts, labels, monkeypatch) -> None:
    of, found = SharedPrefix.of, []
    monkeypatch.setattr(SharedPrefix, "of", lambda *given, **known: found.append(of(*given, **known)) or found[-1])
    shared = traced(tiny, prompts, labels, Engine.attribution)
    assert all(prefix.length for prefix in found)
    found.clear()
    apart = traced(tiny, prompts, labels, Engine.attribution, batch_tokens=1)
    assert len(found) == len(prompts) and all(prefix.length for prefix in found)
    assert len({id(prefix.kept) for prefix in found}) == 1, "of all batches"
    monkeypatch.setattr(
        SharedPrefix,
        "of",
        lambda runner, one, _, known: SharedPrefix(one.embeds[0, :0], (), runner.reach(one.embeds.shape[1])),
    )
    alone = traced(tiny, prompts, labels, Engine.attribution)
    for name in ("clean", "corrupted", "restored", "restored_margin", "restored_heads"):
        for one in (shared, apart):
            np.testing.assert_allclose(getattr(one, name), getattr(alone, name), atol=1e-5, err_msg=name)


def test_a_batch_that_begins_otherwise_has_a_stem_of_its_own(small, prompts, labels, monkeypatch) -> None:
    """Under noise on the aspects alone, a sentence's first words are in the prefix of its own prompts only."""
    of, found = SharedPrefix.of, []
    monkeypatch.setattr(SharedPrefix, "of", lambda *given, **known: found.append(of(*given, **known)) or found[-1])
    apart = {"tokens": Tokens.aspect, "parts": [Part.block], "roles": [Role.last]}
    exact, estimated = (traced(small, prompts, labels, e, **apart, batch_tokens=1) for e in ENGINES)
    assert len({id(prefix.kept) for prefix in found}) > 1
    np.testing.assert_allclose(estimated.clean, exact.clean, atol=1e-5)
    np.testing.assert_allclose(estimated.corrupted, exact.corrupted, atol=1e-5)


def test_where_all_is_corrupted_nothing_is_shared(small, prompts, labels, monkeypatch) -> None:
    of, found = SharedPrefix.of, []
    monkeypatch.setattr(SharedPrefix, "of", lambda *given, **known: found.append(of(*given, **known)) or found[-1])
    exact, estimated = (traced(small, prompts[:2], labels, e, noise=0.03, steps=4, tokens=Tokens.all) for e in ENGINES)
    assert not any(prefix.length for prefix in found)
    np.testing.assert_allclose(estimated.corrupted, exact.corrupted, atol=1e-5)
    effect, estimate = (effects(t, "restored")[:, 0] for t in (exact, estimated))  # of blocks
    known = ~np.isnan(effect)
    assert np.corrcoef(effect[known], estimate[known])[0, 1] > 0.99


def test_the_filter_is_the_exact_engines_and_the_margin_moves_as_the_log_odds_do(bundled, prompts, labels) -> None:
    exact, estimated = (traced(bundled, prompts, labels, e, filter=True, parts=[Part.block]) for e in ENGINES)
    assert exact.counts == estimated.counts
    assert exact.counts.clean_wrong and exact.counts.kept > 1  # so that kept ones stand behind others in a batch
    assert exact.example_ids == estimated.example_ids
    effect, estimate = (np.nanmean(effects(t, "restored_margin"), 0) for t in (exact, estimated))
    known = ~np.isnan(effect)
    assert np.abs(effect[known]).max() > 1
    assert np.corrcoef(effect[known], estimate[known])[0, 1] > 0.9


def test_a_stopped_estimate_goes_on_behind_what_the_filter_left_out(bundled, prompts, labels, tmp_path) -> None:
    settings = TraceSettings(engine=Engine.attribution, parts=[Part.block], batch_tokens=1)
    whole = trace_prompts(bundled, prompts, labels, settings, ABSC.prompt(), seed=3)

    def stopping(items, name, total=None, *, unit):  # type: ignore[no-untyped-def]
        yield from itertools.islice(items, total - 1)
        raise KeyboardInterrupt

    file = tmp_path / "partial.jsonl"
    with pytest.raises(KeyboardInterrupt):
        trace_prompts(bundled, prompts, labels, settings, ABSC.prompt(), seed=3, partial=file, progress=stopping)
    assert '"corrupted": null' in file.read_text(encoding="utf-8")
    resumed = trace_prompts(bundled, prompts, labels, settings, ABSC.prompt(), seed=3, partial=file)
    assert resumed.counts == whole.counts and whole.counts.clean_wrong
    np.testing.assert_array_equal(resumed.restored, whole.restored)


def test_bfloat16_is_near_float32_and_says_what_it_is(tiny, prompts, labels) -> None:
    """Near, but not the same: it is an approximation."""
    for engine in ENGINES:
        full, rounded = (traced(tiny, prompts[:1], labels, engine, dtype=d) for d in Dtype)
        assert traced(tiny, prompts[:1], labels, engine, dtype=None).dtype == of_trace(
            None, tiny.model, estimated=engine is not Engine.exact
        )
        assert (full.dtype, rounded.dtype) == ("float32", "bfloat16")
        for name in ("restored", "restored_heads"):
            assert 0 < np.nanmax(np.abs(getattr(full, name) - getattr(rounded, name))) < 0.03, engine


def test_the_dtype_of_half_weights_is_said(tiny, prompts, labels) -> None:
    half = replace(tiny, model=copy.deepcopy(tiny.model).bfloat16())
    assert traced(half, prompts[:1], labels, Engine.exact, dtype=None).dtype == "bfloat16"


def test_nothing_kept_is_an_error(small, prompts, labels) -> None:
    with pytest.raises(DataError, match="kept none"):
        traced(small, prompts, labels, Engine.attribution, noise=0.0, filter=True)
