"""Both ways of answering give the same answers on the bundled model."""

from __future__ import annotations

from pathlib import Path

import pytest
from contexts import adapt

from absa_edit.inference.classifier import Classifier
from absa_edit.methods.zero_shot import ZeroShot
from absa_edit.model.loading import LanguageModel
from absa_edit.tasks.absc import ABSC


@pytest.mark.slow
def test_generation_and_scoring_agree(bundled: LanguageModel, examples, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "benchmarks"))
    import bench_predict

    monkeypatch.setattr(bench_predict, "ROUNDS", 1)
    monkeypatch.setattr(bench_predict, "ALONE", 4)
    classifier = Classifier(bundled, adapt(bundled.model, ZeroShot(), None, seed=0), ABSC.prompt(), ABSC)
    found = bench_predict.bench(classifier, list(examples))
    assert found["agreement"] == 1.0
    assert found["ratio"] == found["batched_per_second"] / found["one_at_a_time_per_second"] > 0
