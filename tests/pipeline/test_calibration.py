"""The temperature of a method is that of its own answers to development data."""

from __future__ import annotations

from dataclasses import replace

import pytest

from absa_edit.context import Context
from absa_edit.evaluation.calibration import fit_temperature, reliability
from absa_edit.evaluation.predict import log_probabilities, predictions
from absa_edit.evaluation.settings import ScoreSettings
from absa_edit.methods.adapted_model import AdaptedModel
from absa_edit.model.loading import LanguageModel
from absa_edit.pipeline.stages.calibration import calibrated
from absa_edit.resampling import label_numbers
from absa_edit.results import MethodRecord
from absa_edit.tasks.absc import ABSC

RECORD = MethodRecord("base", 0, 0.0, 0.0, None, None, 1.0, 30.0, 0, True, None, {})


def test_it_is_fitted_to_the_answers_and_told_of_each_test_set(small: LanguageModel, examples) -> None:
    ctx = Context.of(small, ABSC, examples, score=ScoreSettings(resamples=20))
    base, asked = AdaptedModel("base", small.model), ctx.encode(ctx.splits.train)
    scores = log_probabilities(base, asked, ctx.labels, batch_tokens=4096)
    gold = [scores[0].argmin(), *scores[1:].argmax(1)]  # all but one of the answers are right
    examples = [replace(p.example, label=ABSC.labels[g]) for p, g in zip(asked, gold, strict=True)]
    prompts = [replace(p, example=e) for p, e in zip(asked, examples, strict=True)]
    rows = {"t": predictions("base", "t", prompts, ABSC.labels, scores)}
    made = calibrated(ctx, "base", base, RECORD, prompts, rows)
    expected = fit_temperature(scores, label_numbers([e.label for e in examples], ABSC.labels))
    assert expected is not None and made.temperature == expected
    rng = ctx.rng("bootstrap t")
    assert made.with_temperature["t"] == reliability(rows["t"], draws=20, rng=rng, temperature=expected.value)
    assert made.with_temperature["t"].log_loss.value == pytest.approx(expected.fitted_log_loss)
    assert made.reliability["t"].log_loss.value == pytest.approx(expected.log_loss)


def test_without_development_data_there_is_none(small: LanguageModel, examples) -> None:
    ctx = Context.of(small, ABSC, examples, score=ScoreSettings(resamples=20))
    base, prompts = AdaptedModel("base", small.model), ctx.encode(ctx.splits.train)
    scores = log_probabilities(base, prompts, ctx.labels, batch_tokens=4096)
    rows = {"t": predictions("base", "t", prompts, ABSC.labels, scores)}
    made = calibrated(ctx, "base", base, RECORD, [], rows)
    assert made.temperature is None and not made.with_temperature and made.reliability.keys() == {"t"}
