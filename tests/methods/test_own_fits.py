"""Whole runs of methods that are not trained by the common loop, or scaled after it: kept, found again, exported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from runs import execute, small_run

import absa_edit
from absa_edit.methods.amplify import Amplify
from absa_edit.methods.full_located import FullLocated
from absa_edit.methods.probe import Probe
from absa_edit.methods.settings import MethodSettings
from absa_edit.methods.solve import Solve
from absa_edit.storage import load_predictions

METHODS = {
    "solve": Solve(rounds=1),
    "amplify": Amplify(rounds=1),
    "probe": Probe(layers=[4, 5]),
    "task_vector": FullLocated(scale=True),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_a_run_is_exported_and_found_again(tmp_path: Path, name: str) -> None:
    method: MethodSettings = METHODS[name]
    run, record, _ = execute(small_run(tmp_path, method={name: method}))
    done = record.methods[name]
    assert done.fit is not None and done.fit.seconds > 0 and done.trainable > 0 and done.frozen_checked
    assert (done.fit.scale is not None) == method.scale
    assert record.export is not None and record.export.agreement == 1.0
    assert record.export.merged is not None or name == "probe"
    _, again, _ = execute(small_run(tmp_path, method={name: method}))
    assert again.methods[name].fit == done.fit
    rows = load_predictions(run.folder / "methods" / name / "predictions.jsonl")
    loaded = absa_edit.load(run.folder, device="cpu")
    answers = loaded.predict([r.text for r in rows[:4]], [r.aspect for r in rows[:4]])
    for row, answer in zip(rows[:4], answers, strict=True):
        np.testing.assert_allclose(list(row.probabilities.values()), list(answer.values()), atol=1e-3)
