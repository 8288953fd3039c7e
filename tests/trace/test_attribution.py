"""Attribution against the exact engine: the same for small corruptions, and in rank on the bundled model."""

from __future__ import annotations

import numpy as np
import pytest

from absa_edit.config import Engine, PromptSettings, TraceSettings
from absa_edit.errors import DataError
from absa_edit.lm.load import LanguageModel
from absa_edit.records import Part, Trace
from absa_edit.trace.tracing import trace_prompts

EVERY = [Part.block, Part.attn, Part.mlp, Part.head]


def traced(lm: LanguageModel, prompts: list, labels: dict, engine: Engine, **settings: object) -> Trace:
    asked = TraceSettings(**{"engine": engine, "samples": 2, "filter": False, "parts": EVERY, **settings})
    return trace_prompts(lm, prompts, labels, asked, PromptSettings(), seed=3)


def test_equals_the_exact_engine_where_the_model_is_as_good_as_linear(tiny, prompts, labels) -> None:
    exact, estimated = (traced(tiny, prompts[:3], labels, e, noise=0.01, window=1) for e in Engine)
    assert (exact.engine, estimated.engine) == ("exact", "attribution")
    np.testing.assert_allclose(estimated.clean, exact.clean, atol=1e-5)
    np.testing.assert_allclose(estimated.corrupted, exact.corrupted, atol=1e-5)
    for name in ("restored_margin", "restored_heads_margin"):
        a, b = (getattr(t, name).ravel() for t in (exact, estimated))
        base = np.broadcast_to(
            exact.corrupted_margin.reshape(-1, *(1,) * (getattr(exact, name).ndim - 1)), getattr(exact, name).shape
        ).ravel()
        assert (np.isnan(a) == np.isnan(b)).all()
        known = ~np.isnan(a)
        effect, estimate = (a - base)[known], (b - base)[known]
        assert np.abs(effect).max() > 1e-4
        assert np.corrcoef(effect, estimate)[0, 1] > 0.99


def test_batches_do_not_change_the_estimate(small, prompts, labels) -> None:
    one, many = (traced(small, prompts, labels, Engine.attribution, batch_tokens=n) for n in (1, 10**6))
    np.testing.assert_allclose(one.restored, many.restored, atol=1e-5)


def test_the_filter_is_the_exact_engines(bundled, prompts, labels) -> None:
    exact, estimated = (traced(bundled, prompts, labels, e, filter=True, parts=[Part.block]) for e in Engine)
    assert exact.counts == estimated.counts
    assert exact.example_ids == estimated.example_ids


def test_nothing_kept_is_an_error(small, prompts, labels) -> None:
    with pytest.raises(DataError, match="kept none"):
        traced(small, prompts, labels, Engine.attribution, noise=0.0, filter=True)
