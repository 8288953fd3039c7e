"""A trace that was stopped goes on where it was, if it is still the same one."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from absa_edit.errors import RecordError
from absa_edit.progress import Progress
from absa_edit.records import Part
from absa_edit.tasks.absc import ABSC, Polarity
from absa_edit.tracing.settings import TraceSettings
from absa_edit.tracing.tracer import trace_prompts


def test_a_stopped_trace_goes_on_where_it_was(small, prompts, labels, tmp_path) -> None:
    file = tmp_path / "partial.jsonl"
    settings = TraceSettings(samples=2, filter=False)
    whole = trace_prompts(small, prompts, labels, settings, ABSC.prompt(), seed=3)

    def stopping(items, name, total=None, *, unit):  # type: ignore[no-untyped-def]
        assert (name, total, unit) == ("trace", len(prompts), "example")
        for number, item in enumerate(items):
            if number == 3:
                raise KeyboardInterrupt
            yield item

    with pytest.raises(KeyboardInterrupt):
        trace_prompts(small, prompts, labels, settings, ABSC.prompt(), seed=3, partial=file, progress=stopping)
    text = file.read_text(encoding="utf-8")
    assert text.count("\n") == 4
    first = max(range(len(prompts)), key=lambda i: len(prompts[i].ids))  # the longest one is traced first
    changed = text.replace(f"[{whole.clean[first]}", "[0.125")  # seen if read again
    file.write_text(changed + '{"id": "cut', encoding="utf-8")
    resumed = trace_prompts(small, prompts, labels, settings, ABSC.prompt(), seed=3, partial=file)
    assert not file.exists()
    assert resumed.clean[first] == 0.125
    np.testing.assert_array_equal(resumed.restored, whole.restored)
    np.testing.assert_array_equal(np.delete(resumed.clean, first), np.delete(whole.clean, first))


def stopped_after(finished: int) -> Progress:
    """A run that is interrupted once so many examples are done."""

    def stopping(items, name, total=None, *, unit="batch"):  # type: ignore[no-untyped-def]
        yield from itertools.islice(items, finished)
        raise KeyboardInterrupt

    return stopping


def test_a_stopped_trace_is_not_gone_on_with_once_a_label_is_corrected(small, prompts, labels, tmp_path) -> None:
    settings = TraceSettings(samples=1, filter=False, parts=[Part.block])
    about = (labels, settings, ABSC.prompt())
    with pytest.raises(KeyboardInterrupt):
        trace_prompts(small, prompts[:2], *about, seed=3, partial=tmp_path / "partial.jsonl", progress=stopped_after(1))
    corrected = [replace(p, example=replace(p.example, label=Polarity.neutral)) for p in prompts[:2]]
    found = trace_prompts(small, corrected, *about, seed=3, partial=tmp_path / "partial.jsonl")
    expected = trace_prompts(small, corrected, *about, seed=3)
    np.testing.assert_array_equal(found.clean, expected.clean)


def test_a_stopped_trace_goes_on_in_smaller_batches(small, prompts, labels, tmp_path) -> None:
    """What a trace that ran out of memory has done is not lost."""
    file, settings = tmp_path / "partial.jsonl", TraceSettings(samples=1, filter=False, parts=[Part.block])
    for smaller in (settings, replace(settings, batch_tokens=500)):
        with pytest.raises(KeyboardInterrupt):
            trace_prompts(
                small, prompts, labels, smaller, ABSC.prompt(), seed=3, partial=file, progress=stopped_after(2)
            )
    assert len(file.read_text(encoding="utf-8").splitlines()) == 1 + 2 + 2
    resumed = trace_prompts(small, prompts, labels, settings, ABSC.prompt(), seed=3, partial=file)
    whole = trace_prompts(small, prompts, labels, settings, ABSC.prompt(), seed=3)
    np.testing.assert_allclose(resumed.restored, whole.restored, atol=1e-6)


def test_a_damaged_line_of_a_stopped_trace_is_said(small, prompts, labels, tmp_path) -> None:
    file, settings = tmp_path / "partial.jsonl", TraceSettings(samples=1, filter=False, parts=[Part.block])
    about = (prompts, labels, settings, ABSC.prompt())
    with pytest.raises(KeyboardInterrupt):
        trace_prompts(small, *about, seed=3, partial=file, progress=stopped_after(2))
    file.write_text(file.read_text(encoding="utf-8").replace('{"id"', '{"id', 1), encoding="utf-8")
    with pytest.raises(RecordError, match=r"partial\.jsonl.*delete it"):
        trace_prompts(small, *about, seed=3, partial=file)


def test_a_stopped_trace_of_other_settings_is_not_gone_on_with(small, prompts, labels, tmp_path) -> None:
    file = tmp_path / "partial.jsonl"
    file.write_text('{"key": "other"}\n{"id": "0", "broken": 1}\n', encoding="utf-8")
    trace = trace_prompts(
        small, prompts[:2], labels, TraceSettings(samples=1, filter=False), ABSC.prompt(), seed=3, partial=file
    )
    assert len(trace.example_ids) == 2
