"""The scores as an `evaluate.Metric`, for other people's training loops; needs no download."""

from __future__ import annotations

from typing import Any

import datasets
import evaluate
import numpy as np

from absa_edit.records import POLARITIES
from absa_edit.resampling import accuracy, confusions, macro_f1


class AbscScore(evaluate.Metric):  # type: ignore[misc]
    """Accuracy and macro-F1 over the three labels always; labels are numbers in the order of `POLARITIES`.

    AbscScore().compute(predictions=[0, 1], references=[0, 2]) gives {"accuracy": 0.5, "macro_f1": 0.333...}.
    """

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Aspect-based sentiment classification: accuracy and macro-F1 over three labels.",
            citation="",
            inputs_description="Label numbers: " + ", ".join(f"{i} {p.value}" for i, p in enumerate(POLARITIES)),
            features=datasets.Features({"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}),
        )

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        odd = [v for v in (*predictions, *references) if not 0 <= v < len(POLARITIES)]
        if odd:
            raise ValueError(f"label number {odd[0]}: expected 0 to {len(POLARITIES) - 1}, in the order of POLARITIES")
        table = confusions(np.asarray(references), np.asarray(predictions), len(POLARITIES)).sum(0)
        return {"accuracy": float(accuracy(table)), "macro_f1": float(macro_f1(table))}
