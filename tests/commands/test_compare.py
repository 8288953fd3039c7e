"""`absa-edit compare` on run folders written by hand."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from absa_edit.cli import main
from absa_edit.evaluation.across_seeds import pool
from absa_edit.evaluation.scoring import compare, score
from absa_edit.records import DataSummary
from absa_edit.results import Fit, MethodRecord, ModelSummary, Prediction, RunRecord
from absa_edit.storage import save_predictions, write_json
from absa_edit.tasks.absc import POLARITIES

METHODS = {"zero_shot": (0.2, 0), "edit": (0.9, 34_560), "lora": (0.6, 737_280)}
TESTS = {"laptop": 40, "restaurant": 24, "phone": 16}
QUESTIONS = {"own test": ("laptop",), "other set": ("restaurant", "phone")}
PREDICTIONS = "predictions.jsonl"


def rows(method: str, test: str, seed: int) -> tuple[Prediction, ...]:
    right, trainable = METHODS[method]
    gold = np.random.default_rng(len(test)).integers(0, 3, TESTS[test])
    luck = np.random.default_rng([seed if trainable else 0, len(method)])
    answers = np.where(luck.random(len(gold)) < right, gold, luck.integers(0, 3, len(gold)))
    share = dict.fromkeys(POLARITIES, 1 / 3)
    return tuple(
        Prediction(method, test, f"{test}-{i}", f"s{i // 2}", "x", "x", POLARITIES[g], POLARITIES[a], share)
        for i, (g, a) in enumerate(zip(gold, answers, strict=True))
    )


def method_record(name: str, seed: int) -> MethodRecord:
    trainable = METHODS[name][1]
    fit = Fit(
        steps=10,
        epochs=2,
        seconds=60.0 + 30 * seed,
        peak_bytes=10**9,
        batch_size=16,
        micro_batch=16,
        best_epoch=1,
        best_macro_f1=0.7,
        history=(),
    )
    return MethodRecord(
        kind=name,
        trainable=trainable,
        share=trainable / 17e6,
        touched_share=0.01,
        lr=None,
        fit=fit if trainable else None,
        score_seconds=1.0,
        perplexity=30.0,
        bytes_on_disk=2 * trainable,
        frozen_checked=True,
        plan=None,
        scores={test: score(rows(name, test, seed), draws=2000, rng=rng(seed, f"bootstrap {test}")) for test in TESTS},
    )


def rng(seed: int, use: str) -> np.random.Generator:
    """What a run draws from, as `Context.rng`."""
    return np.random.default_rng([seed, zlib.crc32(use.encode())])


def write_run(folder: Path, seed: int, experiment: str = "laptop", config: str | None = None) -> RunRecord:
    every = {m: {test: rows(m, test, seed) for test in TESTS} for m in METHODS}
    of_seed = {m: {test: {seed: r} for test, r in tests.items()} for m, tests in every.items()}
    pairs = [("edit", "zero_shot"), ("edit", "lora")]
    data = {f"test/{test}": DataSummary(test, "test", "xml", {"a.xml": "0"}, n, {}, {}) for test, n in TESTS.items()}
    record = RunRecord(
        schema=1,
        experiment=experiment,
        seed=seed,
        data={"train": DataSummary("laptop", "train", "xml", {"b.xml": "1"}, 100, {}, {}), **data},
        model=ModelSummary("reviewlm", "reviewlm", "abc", 17_000_000, 12, "float32"),
        trace=None,
        plan=None,
        methods={name: method_record(name, seed) for name in METHODS},
        comparisons=compare(pairs, every, QUESTIONS, draws=2000, rng=rng(seed, "compare")),
        pooled=pool(pairs, of_seed, QUESTIONS, draws=2000, rng=rng(seed, "pooled")),
        export=None,
        seconds={},
        versions={"absa_edit": "0.1.0"},
        git=None,
        config_hash=f"hash of seed {seed}",
    )
    for name, tests in every.items():
        save_predictions(tuple(r for one in tests.values() for r in one), folder / "methods" / name / PREDICTIONS)
    write_json(record, folder / "results.json")
    if config is not None:
        (folder / ".hydra").mkdir(exist_ok=True)
        (folder / ".hydra" / "config.yaml").write_text(config, encoding="utf-8")
    return record


class Compare:
    """The command, in this process: a new one takes seconds to import."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(self, *arguments: object) -> str:
        """What it prints."""
        main(["compare", *map(str, arguments)])
        return self.capsys.readouterr().out

    def error(self, *arguments: object) -> str:
        """The one line that it ends with."""
        with pytest.raises(SystemExit) as stop:
            self(*arguments)
        said = str(stop.value.code)
        assert said.startswith("error: ") and "\n" not in said and not self.capsys.readouterr().out
        return said


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Compare:
    return Compare(capsys)


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """Two seeds of one experiment."""
    for seed in (0, 1):
        config = f"seed: {seed}\nname: laptop\ndata:\n  path: /somewhere/{seed}\nfit:\n  epochs: 3\n"
        write_run(tmp_path / "laptop" / "reviewlm" / f"seed{seed}", seed, config=config)
    return tmp_path / "laptop" / "reviewlm"


def test_two_seeds_are_averaged_and_compared(run: Compare, two: Path, tmp_path: Path) -> None:
    files = {kind: tmp_path / "out" / f"c.{kind}" for kind in ("json", "markdown", "latex", "csv")}
    said = run(two, *(argument for kind, path in files.items() for argument in (f"--{kind}", path)))
    (group,) = json.loads(files["json"].read_text())["groups"]
    assert group["seeds"] == [0, 1] and not group["differs"]
    by = {(line["method"], line["test"]): line for line in group["lines"]}
    assert len(by) == len(METHODS) * len(TESTS)
    for (method, test), line in by.items():
        right = [np.mean([r.gold == r.predicted for r in rows(method, test, seed)]) for seed in (0, 1)]
        assert line["score"]["accuracy"]["value"] == pytest.approx(np.mean(right))
        assert line["score"]["accuracy"]["n"] == TESTS[test] and line["own"] == (test == "laptop")
    assert by["edit", "laptop"]["fit_seconds"] == 75 and by["zero_shot", "laptop"]["fit_seconds"] is None
    compared = {(c["b"], c["test"], c["metric"]): c for c in group["comparisons"]}
    assert len(compared) == 2 * 3 * 3 and all(c["a"] == "edit" for c in compared.values())
    assert all(c["p_corrected"] >= c["p"] for c in compared.values())

    text, table = files["markdown"].read_text(), files["latex"].read_text()
    shown = f"{100 * by['edit', 'laptop']['score']['macro_f1']['value']:.1f} ["
    for told in (said, text):
        assert "laptop · reviewlm · seeds 0, 1" in told and shown in told
        assert "737,280" in told and "75 s" in told and "edit - lora" in told and "resample seeds" in told
    assert table.count(r"\begin{tabular}") == 3 and "laptop (own) & edit & " in table and r"zero\_shot" in table
    assert "95 \\% intervals" in table and shown in table
    lines = list(csv.DictReader(files["csv"].read_text().splitlines()))
    assert len(lines) == len(by)
    for line in lines:
        score = by[line["method"], line["test"]]["score"]
        assert float(line["log_loss_low"]) == pytest.approx(score["log_loss"]["low"], rel=1e-5)
        assert (line["own"], line["seeds"]) == (str(line["test"] == "laptop"), "0 1")
    assert "| laptop (own) | edit |" in text and "…" not in said
    assert {tuple(p["tests"]) for p in group["pooled"]} == {("restaurant", "phone")}
    assert "| other set (restaurant, phone) | edit - lora | log-loss |" in text


def test_one_seed_gives_the_figures_of_its_run(run: Compare, tmp_path: Path) -> None:
    record = write_run(tmp_path / "one", 4)
    said = run(tmp_path / "one", "--json", tmp_path / "c.json")
    assert "One seed: percent (log-loss in nats) with plain 95 % intervals over sentences" in said and "seed 4" in said
    (group,) = json.loads((tmp_path / "c.json").read_text())["groups"]
    for line in group["lines"]:
        score = record.methods[line["method"]].scores[line["test"]]
        assert line["score"]["macro_f1"]["low"] == score.macro_f1.low
    for found, expected in zip(group["comparisons"], record.comparisons, strict=True):
        assert (found["b"], found["low"], found["p_corrected"]) == (expected.b, expected.low, expected.p_corrected)
    assert len(record.pooled) == 2 * 3
    for found, expected in zip(group["pooled"], record.pooled, strict=True):
        assert (found["question"], found["low"], found["p"]) == (expected.question, expected.low, expected.p)


def test_the_pairs_are_those_that_the_run_named(run: Compare, tmp_path: Path) -> None:
    record = write_run(tmp_path / "one", 4)
    named = tuple(replace(c, a=c.b, b=c.a) for c in record.comparisons if c.b == "lora")
    write_json(replace(record, comparisons=named), tmp_path / "one" / "results.json")
    run(tmp_path / "one", "--json", tmp_path / "c.json")
    (group,) = json.loads((tmp_path / "c.json").read_text())["groups"]
    assert {(c["a"], c["b"]) for c in (*group["comparisons"], *group["pooled"])} == {("lora", "edit")}


def test_runs_that_differ_in_more_than_the_seed_stay_apart(run: Compare, two: Path, tmp_path: Path) -> None:
    write_run(two / "seed2", 2, config="seed: 2\nfit:\n  epochs: 4\n")
    write_run(tmp_path / "restaurant" / "reviewlm" / "seed0", 0, experiment="restaurant")
    said = run(two, tmp_path, "--json", tmp_path / "c.json")
    groups = json.loads((tmp_path / "c.json").read_text())["groups"]
    assert [(g["experiment"], g["seeds"], g["differs"]) for g in groups] == [
        ("laptop", [0, 1], ["fit.epochs 3"]),
        ("laptop", [2], ["fit.epochs 4"]),
        ("restaurant", [0], []),
    ]
    assert "Not averaged with other runs of this experiment and model: fit.epochs 4." in said


def test_runs_whose_settings_were_lost_are_averaged_by_their_hash(run: Compare, tmp_path: Path) -> None:
    for seed in range(3):
        record = write_run(tmp_path / f"seed{seed}", seed)
        write_json(replace(record, config_hash="b" if seed == 2 else "a"), tmp_path / f"seed{seed}" / "results.json")
    run(tmp_path, "--json", tmp_path / "c.json")
    assert [g["seeds"] for g in json.loads((tmp_path / "c.json").read_text())["groups"]] == [[0, 1], [2]]


def test_exact_traces_from_before_their_dtype_was_kept_are_the_same(run: Compare, tmp_path: Path) -> None:
    for seed, dtype in enumerate(("null", "float32")):
        trace = f"seed: {seed}\ntrace:\n  engine: exact\n  dtype: {dtype}\n"
        write_run(tmp_path / f"seed{seed}", seed, config=trace)
    run(tmp_path, "--json", tmp_path / "c.json")
    (group,) = json.loads((tmp_path / "c.json").read_text())["groups"]
    assert group["seeds"] == [0, 1]


def test_against_another_method(run: Compare, two: Path, tmp_path: Path) -> None:
    run(two, "--against", "lora", "--json", tmp_path / "c.json")
    (group,) = json.loads((tmp_path / "c.json").read_text())["groups"]
    assert {(c["a"], c["b"]) for c in group["comparisons"]} == {("lora", "zero_shot"), ("lora", "edit")}
    wrong = run.error(two, "--against", "lroa")
    assert "--against lroa: expected one of the methods zero_shot, edit, lora" in wrong


def test_what_cannot_be_averaged_is_named(run: Compare, two: Path, tmp_path: Path) -> None:
    assert "no such folder" in run.error(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert "no results.json with scored methods" in run.error(tmp_path / "empty")

    write_run(two / "copy", 1, config="seed: 1\nfit:\n  epochs: 3\n")
    assert "are both seed 1 of the same experiment" in run.error(two)


def test_other_examples_stop_the_command(run: Compare, two: Path) -> None:
    for method in METHODS:
        path = two / "seed1" / "methods" / method / PREDICTIONS
        path.write_text(path.read_text().replace('"laptop-3"', '"laptop-x"'))
    said = run.error(two)
    assert "seed 1 answers other examples than zero_shot, seed 0: 2 differ" in said


def test_files_that_do_not_belong_together_are_refused(run: Compare, two: Path) -> None:
    path = two / "seed1" / "methods" / "edit" / PREDICTIONS
    whole = path.read_text()
    save_predictions(tuple(replace(r, predicted=POLARITIES[0]) for test in TESTS for r in rows("edit", test, 1)), path)
    assert "not the answers on laptop that results.json was made of" in run.error(two)
    path.write_text(whole[:-30])
    assert "is not a prediction" in run.error(two)
    path.unlink()
    assert "no such file, and results.json has scores of edit" in run.error(two)
    (two / "seed1" / "results.json").write_text("{}")
    assert "results.json is not a RunRecord" in run.error(two)


def test_the_command_line_ends_without_a_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "absa_edit", "compare", str(tmp_path / "nowhere")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 1 and not done.stdout
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
