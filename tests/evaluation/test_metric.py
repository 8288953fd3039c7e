"""The scores as an `evaluate.Metric`."""

from __future__ import annotations

import pytest
from sklearn.metrics import accuracy_score, f1_score

from absa_edit.evaluation.metric import LabelScore


@pytest.fixture
def metric(tmp_path) -> LabelScore:
    return LabelScore(cache_dir=str(tmp_path))


def test_equals_scikit_learn(metric, rng) -> None:
    gold, predicted = rng.integers(0, 3, (2, 50)).tolist()
    found = metric.compute(predictions=predicted, references=gold)
    f1 = f1_score(gold, predicted, labels=[0, 1, 2], average="macro", zero_division=0)
    assert found == pytest.approx({"accuracy": accuracy_score(gold, predicted), "macro_f1": f1})


def test_a_number_of_no_label_is_an_error(metric) -> None:
    for odd in (-1, 3):
        with pytest.raises(ValueError, match=rf"label number {odd}: expected 0 to 2"):
            metric.compute(predictions=[odd, 0], references=[2, 0])


def test_adds_up_batches_and_counts_absent_classes_as_zero(metric) -> None:
    metric.add_batch(predictions=[1, 1], references=[1, 1])
    metric.add_batch(predictions=[1], references=[1])
    assert metric.compute() == pytest.approx({"accuracy": 1.0, "macro_f1": 1 / 3})
