"""Runs that were stopped, or asked for what does not go together: nothing of them is taken for what it is not."""

from __future__ import annotations

import json
import logging
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from rich.console import Console
from runs import ROOT, execute, settings, small_run

from absa_edit.context import Context
from absa_edit.data.settings import DataSettings, Leaks, PromptSettings
from absa_edit.errors import PlanError, RecordError, SettingsError
from absa_edit.evaluation import predict
from absa_edit.export.settings import ExportSettings
from absa_edit.localizers.settings import LocateSettings, Shape
from absa_edit.methods.delta import Delta
from absa_edit.methods.low_rank_edit import Edit
from absa_edit.methods.zero_shot import ZeroShot
from absa_edit.model import precision
from absa_edit.model.activation_cache import ActivationCache
from absa_edit.model.settings import Dtype, Precision
from absa_edit.pipeline import execute as pipeline
from absa_edit.pipeline.prepare import make_way, prepare
from absa_edit.pipeline.stages import export as export_stage
from absa_edit.pipeline.stages import methods as method_stage
from absa_edit.pipeline.stages import trace as trace_stage
from absa_edit.records import Role
from absa_edit.results import RunRecord
from absa_edit.settings import Stage
from absa_edit.storage import load, load_predictions
from absa_edit.tracing.settings import Engine, TraceSettings
from absa_edit.training.settings import FitSettings


def test_the_size_of_a_batch_makes_no_other_run(tmp_path) -> None:
    """So that a trace that ran out of memory goes on where it was, and nothing finished is thrown away."""
    some, fewer, other = (
        prepare(settings(tmp_path, trace=trace), root=ROOT)
        for trace in (TraceSettings(), TraceSettings(batch_tokens=99), TraceSettings(window=5))
    )
    for key in (Context.trace_key, Context.config_hash):
        assert key(some) == key(fewer) != key(other)


def test_a_release_that_changes_no_arithmetic_throws_nothing_away(tmp_path, monkeypatch) -> None:
    """Kept results are known by the version of the engine, not of the package."""
    run = prepare(settings(tmp_path), root=ROOT)
    key = run.trace_key()
    monkeypatch.setattr("absa_edit.__version__", "99.0")
    assert run.trace_key() == key
    monkeypatch.setattr("absa_edit.context.ENGINE", -1)
    assert run.trace_key() != key


def test_the_longest_prompt_is_no_part_of_a_result(tmp_path) -> None:
    run, roomier = (prepare(settings(tmp_path, prompt=PromptSettings(max_tokens=n)), root=ROOT) for n in (200, 1024))
    assert run.trace_key() == roomier.trace_key()


def test_what_another_machine_would_decide_is_another_run(tmp_path, monkeypatch) -> None:
    estimated = settings(
        tmp_path, trace=TraceSettings(engine=Engine.attribution), fit=FitSettings(precision=Precision.float32)
    )
    monkeypatch.setattr(precision, "has_bfloat16_units", lambda device: True)
    rounded = prepare(estimated, root=ROOT)
    monkeypatch.setattr(precision, "has_bfloat16_units", lambda device: False)
    plain = prepare(estimated, root=ROOT)
    assert (rounded.settings.trace.dtype, plain.settings.trace.dtype) == (Dtype.bfloat16, Dtype.float32)
    assert rounded.key("trace", rounded.settings.trace) != plain.key("trace", plain.settings.trace)
    assert rounded.config_hash() != plain.config_hash()
    untraced = prepare(replace(estimated, stages=[Stage.locate, Stage.methods]), root=ROOT)
    assert untraced.trace_key() == plain.trace_key() != rounded.trace_key(), "that of the stage that it goes on from"


def test_stages_one_after_another_are_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each goes on from what the last left in the folder, and none takes away what is there."""
    traced_once = TraceSettings(examples=2, samples=1, filter=False, roles=[Role.last])
    whole = small_run(tmp_path, trace=traced_once, locate=LocateSettings(), stages=list(Stage))
    _, traced, _ = execute(replace(whole, stages=[Stage.trace]))
    monkeypatch.setattr(trace_stage, "traced", Mock(side_effect=AssertionError("it is there")))
    _, located, _ = execute(replace(whole, stages=[Stage.locate]))
    assert located.trace == traced.trace and located.plan and located.plan.source == "trace"
    run, last, _ = execute(whole)
    assert last.trace == traced.trace and last.plan == located.plan and last.methods and last.export
    for less, named in (([Stage.trace], "locate, methods, export"), ([Stage.locate, Stage.methods], "export")):
        with pytest.raises(SettingsError, match=f"tells what came of {named}: add them to stages, or give another"):
            make_way(replace(run, settings=replace(run.settings, stages=less)))
    assert load(RunRecord, run.folder / "results.json") == last
    shutil.rmtree(run.folder / "trace")
    without = replace(run, settings=replace(run.settings, stages=[s for s in Stage if s is not Stage.trace]))
    with pytest.raises(SettingsError, match="tells what came of trace: add"):
        make_way(without)


@pytest.mark.parametrize(
    ("chosen", "named"),
    [
        (LocateSettings(kind="file", plan="/no/plan.json"), r"locate\.plan=/no/plan\.json: no such file"),
        (LocateSettings(kind="manual", layers=[40]), "layers 0 to"),
        (LocateSettings(rank=9999), "rank 9999"),
        (LocateSettings(width=99), r"locate\.width=99"),
        (LocateSettings(shape=Shape.sites, sites=999), r"locate\.sites=999"),
    ],
)
def test_a_plan_that_cannot_be_is_told_before_the_trace(
    chosen: LocateSettings, named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "trace_stage", Mock(side_effect=AssertionError("hours pass")))
    with pytest.raises(PlanError, match=named):
        execute(settings(tmp_path, locate=chosen))


@pytest.mark.slow
def test_weights_of_a_stopped_run_are_not_taken_for_anothers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first run's record lies beside them; its answers are not theirs."""
    _, first, _ = execute(small_run(tmp_path))
    with monkeypatch.context() as stopping, pytest.raises(KeyboardInterrupt):
        stopping.setattr(method_stage, "predict", Mock(side_effect=KeyboardInterrupt))
        execute(small_run(tmp_path, method={"edit": Edit(lr=1e-2)}))
    _, again, _ = execute(small_run(tmp_path))
    assert again.methods["edit"].scores == first.methods["edit"].scores and again.export == first.export


def test_an_export_whose_proof_was_stopped_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_stage, "plain_adapter", Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        execute(small_run(tmp_path))
    (export,) = tmp_path.rglob("export")
    assert not list(export.iterdir())


@pytest.mark.slow
def test_what_is_scored_again_answers_as_it_did_and_forgets_what_it_was(tmp_path: Path) -> None:
    """Dropout is for training."""
    chosen = small_run(tmp_path, method={"edit": Edit(lr=2e-3, dropout=0.5)})
    run, first, _ = execute(chosen)
    rows = load_predictions(run.folder / "methods/edit/predictions.jsonl")
    other = replace(chosen, score=replace(chosen.score, resamples=101))
    _, again, _ = execute(other)
    assert again.config_hash != first.config_hash and again.methods["edit"].fit == first.methods["edit"].fit
    assert load_predictions(run.folder / "methods/edit/predictions.jsonl") == rows
    results = run.folder / "results.json"
    make_way(prepare(other, root=ROOT))
    assert results.exists(), "what is its own stays"
    make_way(run)
    assert not results.exists(), "what has other settings does not stand beside a new run"
    results.write_text('{"config_hash": ')
    make_way(run)
    assert not results.exists(), "nor does half a file"


def test_a_kept_file_that_is_cut_says_what_to_do(tmp_path: Path) -> None:
    run, _, _ = execute(small_run(tmp_path))
    folder = run.folder / "methods/edit"
    for name in ("predictions.jsonl", "record.json", "weights.safetensors", "fit.json"):
        path = folder / name
        path.write_bytes(path.read_bytes()[:20])
        with pytest.raises(
            RecordError, match=rf"^{folder}/.*; delete (it, and it is made again|record\.json beside it and run again)$"
        ):
            pipeline.execute(run, console=Console(quiet=True), root=ROOT)
        if name == "record.json":  # what stands behind it is read where there is none
            path.unlink()


def test_no_method_pays_for_what_all_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the costs would depend on the order of the methods."""
    clock, shared = time.perf_counter, []

    class Slow(ActivationCache):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            shared.append(self)

    monkeypatch.setattr(predict, "ActivationCache", Slow)
    monkeypatch.setattr(time, "perf_counter", lambda: clock() + 1000 * len(shared))
    _, record, _ = execute(small_run(tmp_path, stages=[Stage.locate, Stage.methods]))
    edit = record.methods["edit"]
    assert shared and edit.fit and edit.fit.seconds < 1000 and edit.score_seconds < 1000


@pytest.mark.slow
def test_own_data_may_be_called_dev(tmp_path: Path) -> None:
    """States of the base model are kept by data set, and there is one of development data."""
    for name, count in (("train", 40), ("test", 7)):
        rows = [
            {"sentence": f"The {a} is {w}.", "aspect": a, "label": label}
            for a in ("screen", "fan", "lid", "cable", "price", "box", "cover")
            for w, label in (("bad", "negative"), ("lovely", "positive"), ("awful", "negative"), ("blue", "neutral"))
        ]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(json.dumps(row) for row in rows[:count]))
    own = {"train": str(tmp_path / "train.jsonl"), "test": str(tmp_path / "test.jsonl"), "leaks": Leaks.keep}
    scores = []
    for name in ("dev", "mine"):
        _, record, _ = execute(small_run(tmp_path / name, data=DataSettings(name=name, **own)))
        scores.append(record.methods["edit"].scores[name].confusion)
    assert scores[0] == scores[1]


def test_kept_leaks_are_scored_with_and_without(tmp_path: Path) -> None:
    """The scores without them are of the same predictions."""
    made = {
        name: [
            {"sentence": f"The {a} is {w}.", "aspect": a, "label": label}
            for a in aspects
            for w, label in (("bad", "negative"), ("lovely", "positive"))
        ]
        for name, aspects in (("train", ("screen", "fan", "lid")), ("test", ("lid", "cover", "price")))
    }
    files = {name: tmp_path / f"{name}.jsonl" for name in made}
    for name, rows in made.items():
        files[name].write_text("\n".join(json.dumps(row) for row in rows))
    data = DataSettings(name="mine", train=str(files["train"]), test=str(files["test"]), leaks=Leaks.keep)
    stages = [Stage.methods, Stage.report]
    run, record, _ = execute(small_run(tmp_path, data=data, method={"zero_shot": ZeroShot()}, stages=stages))
    method = record.methods["zero_shot"]
    clean = method.leak_free["mine"]
    rows = load_predictions(run.folder / "methods" / "zero_shot" / "predictions.jsonl")
    right = [row.predicted == row.gold for row in rows if row.aspect != "lid"]
    assert (method.scores["mine"].accuracy.n, clean.accuracy.n) == (6, 4)
    assert clean.accuracy.value == sum(right) / 4
    for report in ("report.md", "report.html"):
        assert "ithout leaked test rows" in (run.folder / report).read_text()
    dropped = replace(run.settings, data=replace(data, leaks=Leaks.drop), output=str(tmp_path / "dropped"))
    alone = execute(dropped)[1].methods["zero_shot"]
    assert not alone.leak_free
    assert alone.scores["mine"].confusion == clean.confusion


def test_nothing_is_exported_where_the_method_was_left_out(tmp_path: Path) -> None:
    random = {"zero_shot": ZeroShot(), "random": Edit(lr=2e-3, locate="random")}
    chosen = small_run(tmp_path, locate=LocateSettings(kind="all"), method=random)
    _, record, _ = execute(chosen)
    assert record.export is None
    with pytest.raises(SettingsError, match=r"export\.method=random: expected one of .* \(none is left\)"):
        execute(replace(chosen, export=ExportSettings(method="random")))


def test_a_control_that_cannot_be_drawn_is_left_out_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Beside a plan of all layers no other placement exists; found out before anything is trained."""
    chosen = settings(
        tmp_path,
        locate=LocateSettings(kind="all"),
        method={"zero_shot": ZeroShot(), "random": Edit(lr=2e-3, locate="random")},
        stages=[Stage.locate, Stage.methods],
    )
    with caplog.at_level(logging.WARNING, "absa_edit"):
        _, record, _ = execute(chosen)
    assert list(record.methods) == ["zero_shot"]
    assert record.plan and len(record.plan.targets) == 24
    assert any("random is left out" in m for m in caplog.messages)


def test_an_export_of_nothing_is_refused(tmp_path: Path) -> None:
    for method in ("delta", None):
        chosen = settings(
            tmp_path, method={"delta": Delta(lr=2e-4)}, export=ExportSettings(method=method, merged=False)
        )
        with pytest.raises(SettingsError, match=r"export\.merged=false leaves nothing of delta"):
            execute(chosen)


def test_an_unknown_export_method_stops_before_training(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"export\.method=delta2: expected one of the trained methods"):
        execute(settings(tmp_path, export=ExportSettings(method="delta2")))
    assert not list(tmp_path.rglob("methods"))
