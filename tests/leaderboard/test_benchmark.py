"""Benchmark files: what they ask for, what is refused, the runs in order."""

from __future__ import annotations

from pathlib import Path

import pytest

from absa_edit.errors import SettingsError
from absa_edit.leaderboard.benchmark import Benchmark, Job, jobs, overrides, read_benchmark, run_key, tuning_jobs

TEXT = """
models: [reviewlm, gemma3_270m_q4]
train: [laptop14, restaurant14]
tests: [laptop14, restaurant14]
seeds: [0, 1]
sizes: [all, 50]
arms:
  zero_shot: {seeds: [0]}
  edit:
  random: {rate_of: edit}
  full: {models: [reviewlm], rate: 2e-4}
  paper/edit: {models: [gemma3_270m_q4]}
tuning: {rates: [1e-3, 3e-3], train: laptop14, size: 800}
contrasts:
  place: [[edit, random]]
settings: [fit.epochs=2]
"""


@pytest.fixture
def benchmark(tmp_path: Path) -> Benchmark:
    return read(tmp_path, TEXT)


def read(folder: Path, text: str) -> Benchmark:
    path = folder / "some.yaml"
    path.write_text(text, encoding="utf-8")
    return read_benchmark(path)


def test_every_arm_runs_on_its_models_and_seeds_small_sizes_first(benchmark: Benchmark) -> None:
    rates = {("reviewlm", "edit"): 1e-3, ("gemma3_270m_q4", "edit"): 3e-3}
    listed = list(jobs(benchmark, rates))
    assert len(set(listed)) == len(listed) == 2 * (1 + 2 + 2 + 2) * 2 + 2 * (1 + 2 + 2 + 2) * 2
    first = [job for job in listed if job.model == "reviewlm"]
    assert [job.size for job in first] == [50] * 14 + ["all"] * 14
    assert not [job for job in first if job.arm == "paper/edit"]
    assert [job.seed for job in listed if job.arm == "zero_shot"] == [0] * 8
    by_arm = {job.arm: job.rate for job in listed if job.model == "gemma3_270m_q4"}
    assert by_arm == {"zero_shot": None, "edit": 3e-3, "random": 3e-3, "paper/edit": None}
    assert {job.rate for job in first if job.arm == "full"} == {2e-4}


def test_rates_are_chosen_for_arms_that_have_none(benchmark: Benchmark) -> None:
    listed = list(tuning_jobs(benchmark, ["edit", "random", "full", "paper/edit"]))
    assert [(job.model, job.arm, job.rate) for job in listed] == [
        ("reviewlm", "edit", 1e-3),
        ("reviewlm", "edit", 3e-3),
        ("gemma3_270m_q4", "edit", 1e-3),
        ("gemma3_270m_q4", "edit", 3e-3),
        ("gemma3_270m_q4", "paper/edit", 1e-3),
        ("gemma3_270m_q4", "paper/edit", 3e-3),
    ]
    assert {(job.train, job.size, job.seed, job.tuning) for job in listed} == {("laptop14", 800, 0, True)}


def test_a_run_is_a_command_line(benchmark: Benchmark) -> None:
    job = Job("reviewlm", "laptop14", 50, 1, "paper/edit", 3e-3)
    lines = overrides(benchmark, job, stages=["trace", "locate", "methods"], key="paper_edit")
    assert lines == [
        "fit.epochs=2",
        "model=reviewlm",
        "data=laptop14",
        "data.strict=true",
        "data.tests=[laptop14,restaurant14]",
        "method=[paper/edit]",
        "seed=1",
        "stages=[trace,locate,methods]",
        "export.method=none",
        "track=none",
        "data.limit_train=50",
        "data.split_seed=1",
        "method.paper_edit.lr=0.003",
    ]
    assert run_key(lines) == run_key(lines[::-1]) != run_key(lines[:-1])
    assert job.name == "laptop14-50-paper_edit"


def test_tuning_sees_little_of_the_test_data(benchmark: Benchmark) -> None:
    job = Job("reviewlm", "laptop14", "all", 0, "edit", 1e-3, tuning=True)
    lines = overrides(benchmark, job, stages=["methods"], key="edit")
    assert "data.tests=[]" in lines and "data.limit_test=20" in lines
    assert job.name == "laptop14-all-edit-lr0.001"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("edit:", "edti:", r"some: arm 'edti' is none. Did you mean edit\?"),
        ("[[edit, random]]", "[[edit, randm]]", r"contrast 'place': arm 'randm' is none. Did you mean random\?"),
        ("rate_of: edit", "rate_of: edits", r"random: rate_of 'edits' is none. Did you mean edit\?"),
        ("seeds: [0, 1]", "sedes: [0, 1]", r"some.yaml: key 'sedes' is none. Did you mean seeds\?"),
        ("rate: 2e-4", "rte: 2e-4", r"some.yaml: arms: key 'rte' is none. Did you mean rate\?"),
        ("models: [reviewlm],", "models: [gpt],", r"full: model 'gpt' is none. There are reviewlm"),
        ("sizes: [all, 50]", "sizes: [everything]", "size 'everything': expected a number of examples, or all"),
        ("seeds: [0, 1]", "seeds: [zero]", "some.yaml: seeds.0: Input should be a valid integer"),
        ("seeds: [0, 1]", "seeds: []", "some: seeds is empty"),
        ("tests:", "tests: [", "is no YAML file"),
    ],
)
def test_a_mistake_is_named_at_once(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        read(tmp_path, TEXT.replace(old, new, 1))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no such file; give a benchmark"):
        read_benchmark(tmp_path / "none.yaml")
