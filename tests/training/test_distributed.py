"""Several processes end where one does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = str(Path(__file__).with_name("one_process.py"))
TWO = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]


def run(tmp_path: Path, *arguments: str) -> None:
    """In one process, then in two."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for command, output in (([], "one"), (TWO, "two")):
        told = [word.replace("OUTPUT", str(tmp_path / output)) for word in arguments]
        subprocess.run([sys.executable, *command, *told], check=True, env=environment, timeout=300)


@pytest.mark.slow
def test_two_processes_train_what_one_does(tmp_path) -> None:
    run(tmp_path, SCRIPT, str(tmp_path))
    alone, first, second = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("alone", "0", "1"))
    assert first["weights"] == second["weights"] and first["steps"] == alone["steps"] == 12
    np.testing.assert_allclose(first["losses"], alone["losses"], rtol=1e-5)
    for name, weights in alone["weights"].items():
        np.testing.assert_allclose(first["weights"][name], weights, atol=1e-5)
    assert alone["losses"][-1] < alone["losses"][0]


@pytest.mark.slow
def test_the_main_job_shares_its_training(tmp_path) -> None:
    """The first process writes everything, once; the other trains with it."""
    train = str(Path(__file__).resolve().parents[2] / "train.py")
    run(tmp_path, train, "+experiment=smoke", "method=[edit,full]", "fit.precision=float32", "output=OUTPUT")
    (alone,), (shared,) = (list((tmp_path / where).glob("*/*/*/results.json")) for where in ("one", "two"))
    files = [sorted(str(p.relative_to(found.parent)) for p in found.parent.rglob("*")) for found in (alone, shared)]
    assert files[0] == files[1]
    one, two = (json.loads(found.read_text())["methods"] for found in (alone, shared))
    for name in ("edit", "full"):
        assert two[name]["fit"]["steps"] == one[name]["fit"]["steps"] == 5
        assert two[name]["fit"]["history"][0]["loss"] == pytest.approx(one[name]["fit"]["history"][0]["loss"], rel=1e-5)
        assert two[name]["fit"]["flops"] == pytest.approx(one[name]["fit"]["flops"], rel=0.1)
        for test, score in one[name]["scores"].items():
            assert two[name]["scores"][test]["accuracy"] == score["accuracy"]
    shared.unlink()
    again = [*TWO, train, "+experiment=smoke", "method=[edit,full]", "fit.precision=float32"]  # all found, none trained
    subprocess.run([sys.executable, *again, f"output={tmp_path / 'two'}"], check=True, timeout=300)
    found = json.loads(shared.read_text())["methods"]
    assert found == two


@pytest.mark.slow
def test_an_error_ends_all_processes(tmp_path) -> None:
    train = str(Path(__file__).resolve().parents[2] / "train.py")
    command = [sys.executable, *TWO, train, "+experiment=smoke", "method=edit", f"output={tmp_path}"]
    few = [*command, "data.limit_train=2", "locate=manual", "locate.layers=[5]", "stages=[locate,methods]"]
    done = subprocess.run(few, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert "too few to share among 2 processes" in done.stderr
