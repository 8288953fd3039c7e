"""What a method's probabilities are worth, as they are and with the temperature that fits development data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from absa_edit.context import Context
from absa_edit.data.prompts import Prompt
from absa_edit.evaluation.calibration import fit_temperature, reliability
from absa_edit.evaluation.predict import BaseStates, log_probabilities
from absa_edit.methods.adapted_model import AdaptedModel
from absa_edit.resampling import label_numbers
from absa_edit.results import MethodRecord, Prediction, Reliability


def calibrated(
    ctx: Context,
    name: str,
    adapted: AdaptedModel,
    record: MethodRecord,
    dev: Sequence[Prompt],
    rows: Mapping[str, Sequence[Prediction]],
    base: BaseStates | None = None,
) -> MethodRecord:
    """The record with a temperature, where `dev` determines one, and with what the probabilities in `rows` are worth.

    `base` are states of the base model to start from, where the prompts are the run's.
    """
    temperature = None
    if dev:
        scores = log_probabilities(
            adapted,
            dev,
            ctx.labels,
            batch_tokens=ctx.settings.score.batch_tokens,
            frozen=base.of(adapted, "dev", dev) if base else None,
            progress=ctx.progress,
            name=f"{name} on development data",
        )
        temperature = fit_temperature(scores, label_numbers([p.example.label for p in dev], ctx.task.labels))

    def by_test(value: float) -> dict[str, Reliability]:
        draws = ctx.settings.score.resamples
        return {
            test: reliability(r, draws=draws, rng=ctx.rng(f"bootstrap {test}"), temperature=value)
            for test, r in rows.items()
        }

    return replace(
        record,
        reliability=by_test(1.0),
        temperature=temperature,
        with_temperature=by_test(temperature.value) if temperature else {},
    )
