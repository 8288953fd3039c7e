"""The fit of a method that fits itself."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from contexts import adapt

from absa_edit.localizers.plan import plan_of
from absa_edit.methods.delta import Delta
from absa_edit.records import Part, Site
from absa_edit.training.rounds import fit_by_rounds


def test_rounds_are_scored_and_the_best_is_kept(small) -> None:
    adapted = adapt(small.model, Delta(), plan_of(small.runner, [Site(1, Part.attn)], 1, "manual"), seed=0)
    (weight,) = adapted.trainable().values()
    scores = iter([0.3, 0.6, 0.6, 0.5])
    rows: list[dict[str, float]] = []

    def rounds() -> Iterator[dict[str, float]]:
        for number in range(4):
            with torch.no_grad():
                weight.fill_(number)
            yield {"loss": 1.0 - number, "l2": 0.5}

    def evaluate() -> dict[str, float]:
        return {"dev_macro_f1": next(scores)}

    fitted = fit_by_rounds(adapted, rounds(), evaluate, examples=7, on_epoch=rows.append)
    assert (fitted.steps, fitted.epochs, fitted.best_epoch, fitted.best_macro_f1) == (4, 4, 2, 0.6)
    assert torch.all(weight == 1)
    assert tuple(rows) == fitted.history and fitted.batch_size == fitted.micro_batch == 7
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4] and rows[2]["loss"] == -1 and rows[2]["l2"] == 0.5
    assert fitted.seconds >= rows[-1]["seconds"] >= rows[0]["seconds"] > 0 and fitted.peak_bytes > 0


def test_a_fit_without_rounds_leaves_the_model_as_it_was(small) -> None:
    adapted = adapt(small.model, Delta(), plan_of(small.runner, [Site(1, Part.attn)], 1, "manual"), seed=0)
    (weight,) = adapted.trainable().values()
    before = weight.detach().clone()
    fitted = fit_by_rounds(adapted, iter(()), dict, examples=7)
    assert fitted.history == () and torch.equal(weight, before)
    assert fitted.best_macro_f1 == pytest.approx(-1.0)
