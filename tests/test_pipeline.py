"""A whole run on the bundled sample: what it leaves, that the figures can be recomputed, and that it is found again."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from runs import execute, settings
from safetensors.torch import load_file
from sklearn.metrics import accuracy_score, f1_score

import absa_edit
from absa_edit.context import Context
from absa_edit.errors import ExportMismatch
from absa_edit.export import parity
from absa_edit.export.serving import check_serving
from absa_edit.localizers.settings import LocateSettings
from absa_edit.methods.low_rank_edit import Edit
from absa_edit.model.precision import of_training
from absa_edit.pipeline.stages import export as export_stage
from absa_edit.pipeline.stages import trace as trace_stage
from absa_edit.records import EditPlan, Part
from absa_edit.results import RunRecord
from absa_edit.settings import Stage
from absa_edit.storage import load, load_predictions, load_trace
from absa_edit.tasks.absc import POLARITIES
from absa_edit.tracing.settings import Engine, TraceSettings

ROOT = Path(__file__).resolve().parents[1]
LABELS = [p.value for p in POLARITIES]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Context, RunRecord, str]:
    return execute(settings(tmp_path_factory.mktemp("outputs")))


def test_the_folder_is_whole(finished: tuple[Context, RunRecord, str]) -> None:
    run, record, _ = finished
    assert run.folder.parts[-3:] == ("laptop-sample", "reviewlm", "seed0")
    for name in ("results.json", "report.md", "report.html", "plan.json", "trace/trace.json", "figures/trace.png"):
        assert (run.folder / name).stat().st_size > 0, name
    for method in record.methods:
        names = {p.name for p in (run.folder / "methods" / method).iterdir()}
        assert {"record.json", "predictions.jsonl"} <= names
        assert "checkpoint" not in names
    assert load(RunRecord, run.folder / "results.json") == record
    for export in ("adapter", "merged"):
        assert "](figures/trace.png)" in (run.folder / "export" / export / "README.md").read_text()
        assert (run.folder / "export" / export / "figures" / "trace.png").stat().st_size > 0
    assert all(served.works for served in check_serving(run.folder))
    assert {p.name for p in run.folder.rglob(".*")} <= {".hydra"}, "half-written files"


def test_scores_agree_with_scikit_learn(finished: tuple[Context, RunRecord, str]) -> None:
    run, record, _ = finished
    for name, method in record.methods.items():
        rows = load_predictions(run.folder / "methods" / name / "predictions.jsonl")
        assert set(method.scores) == {"laptop-sample", "restaurant-sample"}
        for test, score in method.scores.items():
            gold = [r.gold for r in rows if r.test == test]
            predicted = [r.predicted for r in rows if r.test == test]
            assert score.accuracy.n == len(gold) > 0
            assert score.accuracy.value == pytest.approx(accuracy_score(gold, predicted))
            expected = f1_score(gold, predicted, labels=LABELS, average="macro", zero_division=0.0)
            assert score.macro_f1.value == pytest.approx(expected)
            assert score.macro_f1.low <= score.macro_f1.value <= score.macro_f1.high
            for row in rows:
                assert sum(row.probabilities.values()) == pytest.approx(1)
                assert row.predicted == max(row.probabilities, key=row.probabilities.__getitem__)


def test_a_temperature_is_fitted_for_each_method_and_exported(finished: tuple[Context, RunRecord, str]) -> None:
    run, record, _ = finished
    for name, method in record.methods.items():
        assert method.temperature is not None and method.temperature.n == len(run.splits.dev)
        assert method.temperature.fitted_log_loss <= method.temperature.log_loss
        assert method.reliability.keys() == method.with_temperature.keys() == method.scores.keys()
        for test, of in method.reliability.items():
            assert of.log_loss == method.scores[test].log_loss
            assert of.risks[-1] == pytest.approx(1 - method.scores[test].accuracy.value)
        if method.fit:
            kept = method.fit.history[method.fit.best_epoch - 1]
            assert kept["dev_log_loss"] == pytest.approx(method.temperature.log_loss, abs=1e-6), name
    temperature = record.methods["edit"].temperature
    assert temperature is not None
    for export in ("adapter", "merged"):
        about = json.loads((run.folder / "export" / export / "absa_edit.json").read_text())
        assert about["temperature"] == temperature.value
    assert "Calibration" in (run.folder / "report.md").read_text()


def test_what_the_model_does_besides_stands_beside_the_base_model(finished: tuple[Context, RunRecord, str]) -> None:
    run, record, _ = finished
    assert record.before == record.methods["zero_shot"].retention and record.before is not None
    assert [name for name, method in record.methods.items() if method.is_base] == ["zero_shot"]
    for method in record.methods.values():
        kept = method.retention
        assert kept is not None and kept.perplexity is not None
        assert kept.perplexity.value == method.perplexity and kept.words == record.before.words
        assert kept.elsewhere == {"restaurant-sample": method.scores["restaurant-sample"].log_loss}
        assert kept.sentiment["general-sample"].accuracy.n == 20
    assert record.methods["full"].retention != record.before
    assert "the base model" in (run.folder / "report.md").read_text()


def test_trained_parameters_are_counted_and_nothing_else_moved(finished: tuple[Context, RunRecord, str]) -> None:
    run, record, _ = finished
    assert record.plan is not None
    width, inner, rank = 320, 864, 4
    expected = sum(rank * (width + (inner if t.site.part.value == "mlp" else width)) for t in record.plan.targets)
    methods = record.methods
    assert methods["edit"].trainable == methods["random"].trainable == record.plan.parameters == expected
    assert methods["lora"].trainable == 586_752 and methods["full"].trainable == 17_497_920
    assert methods["zero_shot"].trainable == 0 and methods["zero_shot"].fit is None
    assert methods["random"].plan != methods["edit"].plan == record.plan
    weights = load_file(run.folder / "methods" / "edit" / "weights.safetensors")
    moved = {n.split("layers.")[1].split(".lora")[0] for n, w in weights.items() if "lora_B" in n and w.any()}
    names = {"attn": "self_attn.o_proj", "mlp": "mlp.down_proj"}
    assert moved == {f"{t.site.layer}.{names[t.site.part.value]}" for t in record.plan.targets}
    assert all(m.frozen_checked for m in methods.values())


def test_the_merged_checkpoint_differs_from_the_base_in_the_plan_only(
    finished: tuple[Context, RunRecord, str],
) -> None:
    run, record, _ = finished
    assert record.plan is not None
    merged = load_file(run.folder / "export" / "merged" / "model.safetensors")
    base = run.lm.model.state_dict()
    moved = {n for n, w in merged.items() if not torch.equal(w, base[n])}
    paths = {"attn": "self_attn.o_proj", "mlp": "mlp.down_proj"}
    assert moved == {f"model.layers.{t.site.layer}.{paths[t.site.part.value]}.weight" for t in record.plan.targets}


def test_exports_answer_alike_without_this_package(finished: tuple[Context, RunRecord, str]) -> None:
    """In a process that cannot import absa_edit: plain peft, plain transformers, the prompt typed out."""
    run, record, _ = finished
    assert record.export and record.export.agreement == 1.0 and record.export.n == 40
    rows = load_predictions(run.folder / "methods" / "edit" / "predictions.jsonl")[:3]
    script = f"""
import sys, json
sys.modules["absa_edit"] = None
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
folder, base, rows = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
tokenizer = AutoTokenizer.from_pretrained(folder + "/merged")
models = [
    PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), folder + "/adapter"),
    AutoModelForCausalLM.from_pretrained(folder + "/merged"),
]
words = [tokenizer(" " + w, add_special_tokens=False)["input_ids"][0] for w in {LABELS!r}]
out = []
for model in models:
    assert next(model.parameters()).dtype == torch.float32
    for text, aspect in rows:
        prompt = f"Given the sentence: '{{text}}', what is the sentiment polarity of the aspect term {{aspect}} ?"
        with torch.no_grad():
            logits = model(**tokenizer(prompt, return_tensors="pt")).logits[0, -1, words]
        out.append(logits.softmax(-1).tolist())
print(json.dumps(out))
"""
    base = ROOT / "absa_edit" / "assets" / "reviewlm"
    pairs = json.dumps([(r.text, r.aspect) for r in rows])
    done = subprocess.run(
        [sys.executable, "-c", script, str(run.folder / "export"), str(base), pairs],
        capture_output=True, text=True, check=True, timeout=200,
    )  # fmt: skip
    found = np.array(json.loads(done.stdout.splitlines()[-1]))
    expected = np.array([[r.probabilities[x] for x in LABELS] for r in rows] * 2)
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`")
def test_what_the_cards_say_to_run_runs(finished: tuple[Context, RunRecord, str]) -> None:
    """Each block of a card alone, as it is pasted."""
    run, _, _ = finished
    for kind in ("adapter", "merged"):
        folder = run.folder / "export" / kind
        blocks = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), re.DOTALL)
        assert len(blocks) == 2
        for block in blocks:
            names: dict[str, Any] = {}
            exec(block.replace("this/folder", str(folder)), names)
        assert names["model"].config.model_type == "llama" and names["tokenizer"]("fan")["input_ids"]


def test_report_and_terminal_say_what_was_found(finished: tuple[Context, RunRecord, str]) -> None:
    run, record, terminal = finished
    report = (run.folder / "report.md").read_text()
    page = (run.folder / "report.html").read_text()
    for text in (report, page, terminal):
        assert "BUNDLED SAMPLE" in text.upper()
        assert "laptop14" not in text.replace("+experiment=laptop14", "")
    value = f"{100 * record.methods['edit'].scores['laptop-sample'].macro_f1.value:.1f}"
    assert value in report and value in page and value in terminal
    assert "random" in report


def test_what_the_machine_decides_is_kept_and_said(finished: tuple[Context, RunRecord, str]) -> None:
    run, record, _ = finished
    products = of_training(None, run.lm.model)
    assert run.settings.fit.precision is products
    assert {m.fit.precision for m in record.methods.values() if m.fit} == {products.value}
    assert f"matrix products in {products.value}." in (run.folder / "report.md").read_text()


def test_a_second_run_finds_everything(
    finished: tuple[Context, RunRecord, str], caplog: pytest.LogCaptureFixture
) -> None:
    run, record, _ = finished
    before = {p: p.stat().st_mtime_ns for p in run.folder.rglob("predictions.jsonl")}
    with caplog.at_level(logging.INFO, "absa_edit"):
        _, again, _ = execute(run.settings)
    assert again.methods == record.methods and again.comparisons == record.comparisons
    assert sum("found in" in m for m in caplog.messages) == 7
    assert before == {p: p.stat().st_mtime_ns for p in run.folder.rglob("predictions.jsonl")}


def test_a_plan_can_be_passed_back_in(finished: tuple[Context, RunRecord, str], tmp_path: Path) -> None:
    run, record, _ = finished
    chosen = settings(
        tmp_path,
        locate=LocateSettings(kind="file", plan=str(run.folder / "plan.json")),
        method={"edit": Edit(lr=2e-3)},
        stages=[Stage.locate, Stage.methods],
    )
    _, again, _ = execute(chosen)
    assert record.plan == load(EditPlan, run.folder / "plan.json")
    assert record.plan and again.plan == replace(record.plan, source="file", stability=None)
    assert again.trace is None
    assert again.methods["edit"].scores == record.methods["edit"].scores, "the same plan trains the same edit"


def test_python_gives_the_same_records(finished: tuple[Context, RunRecord, str]) -> None:
    """The same trace to the last bit, the same plan."""
    run, record, _ = finished
    model = absa_edit.Model("reviewlm", device="cpu")
    data = absa_edit.read("laptop-sample", tests=["restaurant-sample"], limit_train=60, limit_test=20)
    trace = model.trace(data.train, examples=4, samples=1, filter=False, roles=["aspect", "last"])
    kept = load_trace(run.folder / "trace")
    assert kept and trace.example_ids == kept.example_ids
    np.testing.assert_array_equal(trace.restored, kept.restored)
    assert model.plan(trace) == record.plan


def test_the_representation_edit_runs_and_reloads(tmp_path: Path) -> None:
    from absa_edit import load as load_classifier

    chosen = settings(
        tmp_path,
        locate=LocateSettings(kind="manual", layers=[5, 6]),
        method={"edit": Edit(lr=2e-3, representation=True)},
        stages=[Stage.locate, Stage.methods, Stage.export],
    )
    run, record, _ = execute(chosen)
    assert record.methods["edit"].trainable == 14_592 + 2 * (2 * 4 * 320 + 4)
    assert record.export and record.export.adapter and record.export.merged is None
    rows = [r for r in load_predictions(run.folder / "methods/edit/predictions.jsonl") if r.text.count(r.aspect) == 1][
        :6
    ]
    found = load_classifier(run.folder).predict([r.text for r in rows], [r.aspect for r in rows])
    for row, probabilities in zip(rows, found, strict=True):
        assert probabilities == pytest.approx(row.probabilities, abs=1e-4)


def test_an_export_that_differs_fails_the_run(
    finished: tuple[Context, RunRecord, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _, _ = finished
    honest = parity.plain_merged

    def tampered(folder: Path, like: Any) -> Any:
        adapted = honest(folder, like)
        with torch.no_grad():
            adapted.model.get_output_embeddings().weight.mul_(-1)
        return adapted

    monkeypatch.setattr(export_stage, "plain_merged", tampered)
    before = load(RunRecord, run.folder / "results.json")
    reported = (run.folder / "report.md").stat().st_mtime_ns
    with pytest.raises(ExportMismatch, match=r"merged checkpoint: \d+ of 40 test predictions differ"):
        execute(run.settings)
    after = load(RunRecord, run.folder / "results.json")
    assert after.methods == before.methods and after.export is None, "what was found is kept"
    exports = [p.name for p in (run.folder / "export").iterdir()]
    assert exports == ["adapter"], "what failed its proof is not served, what passed it is"
    assert (run.folder / "report.md").stat().st_mtime_ns > reported, "and the report says what was found"
    failure = after.export_failure or ""
    assert failure.startswith("merged checkpoint:") and before.export_failure is None
    told = [(run.folder / name).read_text(encoding="utf-8") for name in ("report.md", "report.html")]
    assert all(f"FAILED ITS PROOF. {failure}" in text for text in told), "and that the export is not to be had"
    monkeypatch.undo()
    execute(run.settings)  # the export is back for the tests that follow
    again = load(RunRecord, run.folder / "results.json")
    assert again.export == before.export and again.export_failure is None


def test_the_predict_command_answers(finished: tuple[Context, RunRecord, str], tmp_path: Path) -> None:
    run, _, _ = finished
    command = [sys.executable, "-m", "absa_edit", "predict", str(run.folder)]
    command += ["--sentence", "The fan stops.", "--aspect", "fan"]
    one = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=200)
    assert all(label in one.stdout for label in LABELS) and not one.stderr
    wrong = subprocess.run([*command[:-1], "screen"], cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert wrong.returncode == 1
    assert "'screen' does not stand in the sentence" in wrong.stderr and "Traceback" not in wrong.stderr


@pytest.mark.slow
def test_an_estimated_trace_alone_is_drawn_and_compared_with_the_exact_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = TraceSettings(
        engine=Engine.auto, grids=1, examples=4, samples=1, filter=False, checked=3, parts=[Part.block, Part.attn]
    )
    run, record, _ = execute(settings(tmp_path, trace=asked, stages=[Stage.trace]))
    monkeypatch.setattr(trace_stage, "trace_prompts", Mock(side_effect=AssertionError("it was compared before")))
    assert execute(settings(tmp_path, trace=asked, stages=[Stage.trace]))[1].trace == record.trace
    assert (run.folder / "figures" / "trace.png").stat().st_size > 10_000
    assert (run.folder / "figures" / "trace_tokens_1.png").stat().st_size > 10_000
    assert not record.methods
    assert record.trace and record.trace.engine == "auto" and record.trace.agreement
    assert record.trace.agreement.rank_correlation.n == 3
    assert 0.3 < record.trace.agreement.rank_correlation.value <= 1
    trace = load_trace(run.folder / "trace")
    assert trace and trace.exact_cells and {part for part, _, _ in trace.exact_cells} == set(trace.parts)
