"""Weights in bfloat16 with adapters in float32, against the same training on float32 weights."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import absa_edit
from absa_edit.errors import ModelError
from absa_edit.methods.lora import Lora
from absa_edit.methods.low_rank_edit import Edit
from absa_edit.methods.settings import MethodSettings
from absa_edit.model.known import PACKAGED
from absa_edit.model.sources import model_folder
from absa_edit.results import Score
from absa_edit.training.settings import FitSettings

TRAIN = 200
METHODS = {"edit": Edit(), "lora": Lora()}


def trained(name: str, dtype: str, method: MethodSettings) -> Score:
    """The development score, scored in the weights' own dtype."""
    splits = absa_edit.read("laptop-sample", tests=[])
    splits = replace(splits, train=replace(splits.train, examples=splits.train.examples[:TRAIN]))
    model = absa_edit.Model(name, device="cpu", dtype=dtype)
    layers = model.lm.runner.layers
    middle = list(range(layers // 3, layers - layers // 3))
    plan = model.plan(kind="manual", layers=middle) if isinstance(method, Edit) else None
    classifier = model.edit(plan, splits, method=method, fit=FitSettings(epochs=2))
    assert all(p.dtype == torch.float32 for p in classifier.adapted.trainable().values())
    assert classifier.lm.model.dtype == getattr(torch, dtype)
    return classifier.score(splits.dev)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["reviewlm", *PACKAGED])
def test_bfloat16_weights_score_within_the_interval_of_float32_ones(name: str, method: str) -> None:
    try:
        model_folder(name)
    except ModelError as error:
        pytest.skip(str(error))
    exact, rounded = (trained(name, dtype, METHODS[method]) for dtype in ("float32", "bfloat16"))
    assert exact.macro_f1.low <= rounded.macro_f1.value <= exact.macro_f1.high
