"""The scores as an `evaluate.Metric`: what gives a run its headline scores, and works in other people's loops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate
import numpy as np

from absa_edit.resampling import accuracy, confusions, macro_f1
from absa_edit.tasks.absc import ABSC


class LabelScore(evaluate.Metric):  # type: ignore[misc]
    """Accuracy and macro-F1 over all labels of a task always; needs no download.

    LabelScore().compute(predictions=[0, 1], references=[0, 2]) gives {"accuracy": 0.5, "macro_f1": 0.333...}; answers
    are numbers in the order of `labels`.
    """

    def __init__(self, labels: Sequence[str] = ABSC.labels, **options: Any) -> None:
        self.labels = tuple(labels)
        super().__init__(**options)

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=f"Accuracy and macro-F1 over {len(self.labels)} labels.",
            citation="",
            inputs_description="Label numbers: " + ", ".join(f"{i} {label}" for i, label in enumerate(self.labels)),
            features=datasets.Features({"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}),
        )

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        odd = [v for v in (*predictions, *references) if not 0 <= v < len(self.labels)]
        if odd:
            raise ValueError(
                f"label number {odd[0]}: expected 0 to {len(self.labels) - 1}, in the order {', '.join(self.labels)}"
            )
        table = confusions(np.asarray(references), np.asarray(predictions), len(self.labels)).sum(0)
        return {"accuracy": float(accuracy(table)), "macro_f1": float(macro_f1(table))}
