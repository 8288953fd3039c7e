"""Files that are whole or absent, records that are checked on reading."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from absa_edit import storage
from absa_edit.errors import RecordError
from absa_edit.records import EditPlan, Part, Role, Site, Target, Trace, TraceCounts
from absa_edit.results import Interval, Prediction
from absa_edit.storage import (
    atomic,
    content_hash,
    load,
    load_predictions,
    load_trace,
    save_predictions,
    save_trace,
    to_json,
    write_json,
)
from absa_edit.tasks.absc import Polarity

PLAN = EditPlan("trace", (Target(Site(1, Part.attn), 4), Target(Site(2, Part.mlp), 3)), 100, 0.5)


def some_trace(rng: np.random.Generator) -> Trace:
    restored = rng.random((2, 1, 3, 4))
    restored[1, :, 0] = np.nan
    counts = TraceCounts(5, 2, 1, 2)
    return Trace(
        "exact", "noise", "sentence", 0.25, 3, 3, (Part.block,), (Role.before, Role.aspect, Role.last), 4, counts, 1.5,
        ("a:1", "b:2"), ("a", "b"), *rng.random((2, 2)), restored, *rng.random((2, 2)), 2 * restored,
    )  # fmt: skip


def same(a: Trace, b: Trace) -> bool:
    return all(
        np.array_equal(x, y, equal_nan=isinstance(x, np.ndarray)) for x, y in zip(*map(_values, (a, b)), strict=True)
    )


def _values(trace: Trace) -> list[object]:
    return [getattr(trace, name) for name in asdict(trace)]


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path) -> None:
    path = tmp_path / "deep" / "file.txt"
    with atomic(path) as temporary:
        temporary.write_text("old")
    with pytest.raises(KeyError), atomic(path) as temporary:
        temporary.write_text("half")
        assert path.read_text() == "old"
        raise KeyError
    assert path.read_text() == "old"
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]


def test_a_first_write_that_fails_leaves_nothing(tmp_path) -> None:
    with pytest.raises(KeyError), atomic(tmp_path / "file.txt"):
        raise KeyError
    assert not list(tmp_path.iterdir())


def test_written_files_can_be_read_by_others(tmp_path) -> None:
    write_json({"a": 1}, tmp_path / "a.json")
    assert (tmp_path / "a.json").stat().st_mode & 0o777 == 0o644


def test_a_record_round_trips(tmp_path) -> None:
    write_json(PLAN, tmp_path / "plan.json")
    assert load(EditPlan, tmp_path / "plan.json") == PLAN
    assert json.loads((tmp_path / "plan.json").read_text())["targets"][0]["site"] == {
        "layer": 1,
        "part": "attn",
        "index": None,
    }


def test_a_value_that_json_has_no_word_for_is_an_error_and_the_old_file_stays(tmp_path) -> None:
    path = tmp_path / "a.json"
    write_json(Interval(0.5, 0.4, 0.6, 3), path)
    for bad in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="JSON"):
            write_json(Interval(bad, 0.4, 0.6, 3), path)
    assert load(Interval, path).value == 0.5


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"parameters": "many"}, "parameters"),
        ({"targets": [{"site": {"layer": 1, "part": "gate"}, "rank": 1}]}, r"targets\.0\.site\.part"),
        ({"targets": [{"site": {"layer": 1, "part": "attn"}, "rank": 1.5}]}, r"targets\.0\.rank"),
        ({"budget": 3}, "budget"),
    ],
)
def test_a_wrong_field_is_named(tmp_path, change, named) -> None:
    (tmp_path / "plan.json").write_text(json.dumps({**to_json(PLAN), **change}))
    with pytest.raises(RecordError, match=rf"plan\.json is not a EditPlan: {named}: "):
        load(EditPlan, tmp_path / "plan.json")


def test_a_missing_field_and_a_broken_file_are_named(tmp_path) -> None:
    plain = to_json(PLAN)
    del plain["source"]
    (tmp_path / "plan.json").write_text(json.dumps(plain))
    with pytest.raises(RecordError, match="source: "):
        load(EditPlan, tmp_path / "plan.json")
    (tmp_path / "plan.json").write_text('{"source": ')
    with pytest.raises(RecordError, match="file: "):
        load(EditPlan, tmp_path / "plan.json")


def test_a_trace_round_trips(tmp_path, rng) -> None:
    trace = some_trace(rng)
    save_trace(trace, tmp_path / "trace", "k1")
    found = load_trace(tmp_path / "trace", "k1")
    assert found is not None and same(found, trace)
    assert isinstance(found.parts[0], Part) and isinstance(found.roles[0], Role)
    assert type(found.counts) is TraceCounts
    assert load_trace(tmp_path / "trace") is not None
    assert not same(found, replace(trace, restored=trace.restored + 1))


def test_a_trace_of_another_key_or_none(tmp_path, rng) -> None:
    assert load_trace(tmp_path, "k1") is None
    save_trace(some_trace(rng), tmp_path, "k1")
    assert load_trace(tmp_path, "k2") is None


def test_a_trace_cut_off_while_written_is_never_mixed_with_the_old_one(tmp_path, rng, monkeypatch) -> None:
    save_trace(some_trace(rng), tmp_path, "k1")

    def power_cut(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(storage, "write_json", power_cut)
    with pytest.raises(OSError, match="no space"):
        save_trace(some_trace(rng), tmp_path, "k2")
    assert load_trace(tmp_path, "k1") is None and load_trace(tmp_path, "k2") is None


@pytest.mark.parametrize("file", ["trace.json", "trace.safetensors"])
def test_a_trace_that_is_cut_says_what_to_do(tmp_path, rng, file) -> None:
    save_trace(some_trace(rng), tmp_path, "k1")
    (tmp_path / file).write_bytes((tmp_path / file).read_bytes()[:40])
    with pytest.raises(RecordError, match=rf"^{tmp_path}/trace\.json, .*; delete it, and it is made again"):
        load_trace(tmp_path, "k1")


def test_predictions_round_trip(tmp_path) -> None:
    odd = 'line\nbreak\u2028and "quotes" 屏幕 \x85 \r end'
    rows = tuple(
        Prediction("edit", "t", f"{i}", "s", odd, "屏幕", Polarity.neutral, Polarity.positive, {"positive": 1 / 3})
        for i in range(3)
    )
    path = tmp_path / "predictions.jsonl"
    save_predictions(rows, path)
    assert load_predictions(path) == rows
    assert path.read_bytes().count(b"\n") == 3
    save_predictions((), path)
    assert load_predictions(path) == ()


def test_hash_follows_content(tmp_path: Path) -> None:
    other = replace(PLAN, stability=None)
    hashes = [content_hash(*p) for p in ((PLAN,), (other,), (PLAN, 1), (1, PLAN), ("ab",), ("a", "b"))]
    assert len(set(hashes)) == len(hashes)
    assert all(len(h) == 16 and int(h, 16) >= 0 for h in hashes)
    assert content_hash({"a": 1, "b": 2}) == content_hash({"b": 2, "a": 1})
    assert content_hash(EditPlan("trace", PLAN.targets, 100, 0.5)) == content_hash(PLAN)
