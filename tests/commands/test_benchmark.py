"""`absa-edit benchmark` for real, on a few examples of the bundled sample."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from absa_edit.cli import main
from absa_edit.leaderboard.rows import Results

TEXT = """
models: [reviewlm]
train: [sample]
tests: [laptop-sample, restaurant-sample]
seeds: [0]
sizes: [40]
arms:
  zero_shot:
  edit: {{seeds: [0, 1]}}
  random: {{rate_of: edit}}
tuning: {{rates: {rates}, train: sample, size: 40}}
contrasts:
  does place matter: [[edit, random]]
settings:
  - data.limit_test=12
  - model.device=cpu
  - trace.model=base
  - trace.examples=4
  - trace.samples=1
  - trace.filter=false
  - trace.grids=0
  - fit.epochs=1
  - score.resamples=50
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("absa_edit.leaderboard.page.DRAWS", 50)
    path = tmp_path / "benchmarks" / "small.yaml"
    path.parent.mkdir()
    path.write_text(TEXT.format(rates="[1e-3, 3e-3]"), encoding="utf-8")
    return path


def run(file: Path, *arguments: str) -> Results:
    main(["benchmark", str(file), *arguments], root=file.parents[1])
    return Results(file.parent / "results", "small")


def test_what_is_to_be_run_is_listed(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["benchmark", str(file), "--list"], root=file.parents[1])
    assert capsys.readouterr().out.splitlines() == [
        "reviewlm sample-40-edit-lr0.001 seed 0",
        "reviewlm sample-40-edit-lr0.003 seed 0",
        "reviewlm sample-40-zero_shot seed 0",  # those of edit and random wait for their rate
    ]
    assert not (file.parent / "results").exists()


def test_settings_of_runs_belong_in_the_file(file: Path) -> None:
    with pytest.raises(SystemExit, match=r"fit.epochs=2: settings of the runs belong in .*small.yaml"):
        main(["benchmark", str(file), "fit.epochs=2"], root=file.parents[1])


def test_a_part_that_is_none_is_named(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"small.yaml: --arms 'edti' is none. Did you mean edit\?"):
        main(["benchmark", str(file), "--arms", "edti", "--list"], root=file.parents[1])
    main(["benchmark", str(file), "--arms", "random", "--list"], root=file.parents[1])
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()] == [
        "sample-40-edit-lr0.001",  # the rate that random takes
        "sample-40-edit-lr0.003",
    ]


@pytest.mark.slow
def test_a_benchmark_is_run_collected_and_gone_on_with(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = run(file, "--seeds", "0")
    rows = {(row.arm, row.seed, row.tuning): row for row in results.rows.values()}
    assert set(rows) == {("edit", 0, True), ("zero_shot", 0, False), ("edit", 0, False), ("random", 0, False)}
    tuned = [row for row in results.rows.values() if row.tuning]
    assert len(tuned) == 2
    assert not any(row.method.scores or row.answers for row in tuned), "rates are not chosen by test data"
    best = min(tuned, key=lambda row: row.train_info.metrics[-1]["dev_log_loss"])
    assert rows["edit", 0, False].rate == rows["random", 0, False].rate == best.rate == rows["edit", 0, False].method.lr

    row = rows["edit", 0, False]
    answers, examples = results.answers(row, "laptop-sample"), results.examples(row.answers["laptop-sample"])
    score = row.method.scores["laptop-sample"]
    assert float((answers.predicted == examples.gold).mean()) == pytest.approx(score.accuracy.value)
    assert len(examples.sentence) == score.accuracy.n
    text = (file.parent / "results" / "small.json").read_text(encoding="utf-8")
    assert str(file.parents[1]) not in text, "no path of a machine is kept"

    printed = capsys.readouterr().out.split()
    assert all(Path(path).stat().st_size for path in printed)
    assert {Path(path).suffix for path in printed} == {".json", ".md", ".csv", ".tex", ".png"}
    page = (file.parent / "results" / "small.md").read_text(encoding="utf-8")
    assert "| does place matter | edit - random | in domain | macro-F1 |" in page
    lines = list(csv.DictReader((file.parent / "results" / "small.csv").read_text(encoding="utf-8").splitlines()))
    (line,) = (r for r in lines if (r["arm"], r["scope"], r["metric"]) == ("edit", "in domain", "accuracy"))
    assert float(line["value"]) == pytest.approx(score.accuracy.value, abs=1e-5)

    before = json.loads(text)
    main(["benchmark", str(file), "--list"], root=file.parents[1])
    assert capsys.readouterr().out.splitlines() == ["reviewlm sample-40-edit seed 1"]
    after = run(file)
    assert len(after.rows) == len(before["rows"]) + 1
    kept = json.loads((file.parent / "results" / "small.json").read_text(encoding="utf-8"))["rows"]
    assert all(row in kept for row in before["rows"]), "what was done is not done again"


@pytest.mark.slow
def test_runs_go_side_by_side(file: Path) -> None:
    file.write_text(TEXT.format(rates="[1e-3, 3e-3]").replace("tuning:", "# tuning:"), encoding="utf-8")
    results = run(file, "--arms", "zero_shot,edit", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    assert sorted((row.arm, row.seed, row.failed) for row in results.rows.values()) == [
        ("edit", 0, False),
        ("edit", 1, False),
        ("zero_shot", 0, False),
    ]


@pytest.mark.slow
def test_a_run_that_fails_does_not_stop_the_others(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text(TEXT.format(rates="[1e-3, 3e-3]").replace("restaurant-sample]", "mams]"), encoding="utf-8")
    results = run(file, "--arms", "zero_shot")
    (row,) = results.rows.values()
    assert row.failed
    assert "mams, which the benchmark is to be scored on, was not found" in row.run_info.error_msg
    assert "mams, which" in (file.parent / "results" / "small.md").read_text(encoding="utf-8")
