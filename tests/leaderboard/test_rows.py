"""Rows of a benchmark: kept, read again, and the learning rates that are chosen by them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from runs import ROOT, execute, small_run

from absa_edit.errors import RecordError
from absa_edit.leaderboard.benchmark import Job, read_benchmark
from absa_edit.leaderboard.rows import Results, Row, chosen_rates, failed_row, row_of
from absa_edit.records import Role
from absa_edit.settings import Stage
from absa_edit.storage import load_predictions
from absa_edit.tracing.settings import TraceSettings

JOB = Job("reviewlm", "sample", 30, 0, "edit", 2e-3)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    chosen = small_run(tmp_path_factory.mktemp("run"), stages=[Stage.locate, Stage.methods])
    return execute(chosen)[0].folder


def test_answers_are_kept_without_the_words(run: Path, tmp_path: Path) -> None:
    results = Results(tmp_path, "small")
    results.add(row_of(JOB, "k", run, "2026-01-01T00:00:00+00:00"), run)
    results.save()
    again = Results(tmp_path, "small")
    (row,) = again.rows.values()
    assert row == results.rows["k"]
    assert (row.job, row.trained_on, row.failed) == (JOB, "laptop-sample", False)
    predictions = load_predictions(run / "methods" / "edit" / "predictions.jsonl")
    answers, examples = again.answers(row, "laptop-sample"), again.examples(row.answers["laptop-sample"])
    labels = examples.labels
    assert [labels[i] for i in answers.predicted] == [p.predicted for p in predictions]
    assert [labels[i] for i in examples.gold] == [p.gold for p in predictions]
    expected = [-np.log(p.probabilities[p.gold]) for p in predictions]
    np.testing.assert_allclose(answers.log_loss, expected, rtol=1e-3)
    same = [[a.sentence_id == b.sentence_id for a in predictions] for b in predictions]
    np.testing.assert_array_equal(examples.sentence[:, None] == examples.sentence, same)
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert not any(p.text.encode() in written or p.aspect.encode() in written for p in predictions)


def test_the_averaged_trace_is_kept(tmp_path: Path) -> None:
    trace = TraceSettings(examples=4, samples=1, filter=False, roles=[Role.aspect, Role.last])
    chosen = small_run(tmp_path, stages=[Stage.trace, Stage.locate, Stage.methods], trace=trace)
    ctx, record, _ = execute(chosen)
    results = Results(tmp_path, "small")
    results.add(row_of(JOB, "k", ctx.folder, ""), ctx.folder)
    (row,) = results.rows.values()
    effects = results.effects(row.effects)
    peak = record.trace.peak
    at = effects.parts.index(peak.part), effects.roles.index(peak.role), peak.layer
    assert effects.aie[at] == pytest.approx(peak.effect.value, abs=1e-5) == pytest.approx(effects.aie.max(), abs=1e-5)
    assert (effects.low <= effects.aie + 1e-5).all() and (effects.aie <= effects.high + 1e-5).all()


def test_a_row_has_the_fields_of_pefts_records(run: Path) -> None:
    row = row_of(JOB, "k", run, "2026-01-01T00:00:00+00:00")
    assert row.train_info.status == "success"
    assert row.train_info.num_trainable_params == 2 * 4 * (320 + 320 + 864 + 320) == row.method.trainable
    assert row.run_info.train_config["optimizer_kwargs"] == {"lr": 2e-3}
    assert [epoch["epoch"] for epoch in row.train_info.metrics] == [1]
    assert row.meta_info.model_info["sha"] == row_of(JOB, "k", run, "").meta_info.model_info["sha"] != ""


def test_a_changed_file_is_refused(run: Path, tmp_path: Path) -> None:
    results = Results(tmp_path, "small")
    results.add(failed_row(JOB, "k", "why", ""))
    results.save()
    content = json.loads(results.path.read_text())
    results.path.write_text(json.dumps({**content, "schema": 0}))
    with pytest.raises(RecordError, match="has schema 0: expected 1; run the benchmark again"):
        Results(tmp_path, "small")
    content["rows"][0]["more"] = 1
    results.path.write_text(json.dumps(content))
    with pytest.raises(RecordError, match=r"rows\.0\.more: "):
        Results(tmp_path, "small")


def test_the_rate_with_the_lowest_development_log_loss_is_chosen(run: Path) -> None:
    first = row_of(replace(JOB, tuning=True), "k", run, "")
    assert not first.method.scores, "test data chooses no rate"

    def at(rate: float, loss: float, arm: str = "edit") -> Row:
        fit = first.method.fit
        history = tuple({**epoch, "dev_log_loss": loss} for epoch in fit.history)
        method = replace(first.method, fit=replace(fit, history=history))
        return replace(first, rate=rate, arm=arm, method=method)

    failed = failed_row(replace(JOB, tuning=True, rate=1e-1), "f", "overflow", "")
    scored = replace(at(1e-2, 0.1), tuning=False)
    rows = [at(1e-3, 0.7), at(3e-3, 0.6), at(1e-2, 0.8), at(1e-4, 0.5, "lora"), failed, scored]
    assert chosen_rates(rows) == {("reviewlm", "edit"): 3e-3, ("reviewlm", "lora"): 1e-4}
    assert chosen_rates([at(3e-3, 0.6), at(1e-3, 0.6)]) == {("reviewlm", "edit"): 1e-3}


def test_the_schema_of_committed_rows_holds() -> None:
    for path in (ROOT / "benchmarks").glob("*.yaml"):
        results = Results(path.parent / "results", read_benchmark(path).name)
        for row in results.rows.values():
            for test in row.answers:
                assert len(results.answers(row, test).predicted) == len(results.examples(row.answers[test]).gold)
