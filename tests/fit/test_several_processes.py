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


@pytest.mark.slow
def test_two_processes_train_what_one_does(tmp_path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    two = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    for command in ([SCRIPT], [*two, SCRIPT]):
        subprocess.run([sys.executable, *command, str(tmp_path)], check=True, env=environment, timeout=300)
    alone, first, second = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("alone", "0", "1"))
    assert first["weights"] == second["weights"] and first["steps"] == alone["steps"] == 12
    np.testing.assert_allclose(first["losses"], alone["losses"], rtol=1e-5)
    for name, weights in alone["weights"].items():
        np.testing.assert_allclose(first["weights"][name], weights, atol=1e-5)
    assert alone["losses"][-1] < alone["losses"][0]
