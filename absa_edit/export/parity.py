"""The proof that an export answers like the model it was made from: load it plainly, predict again, compare."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from peft import PeftModel
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from absa_edit.errors import ExportMismatch, ModelError
from absa_edit.export.folder import ABOUT, ADAPTER, Description, read_representation
from absa_edit.methods.adapted_model import AdaptedModel
from absa_edit.methods.peft_adapter import load_adapter
from absa_edit.results import Prediction
from absa_edit.storage import load

GAP = {"float32": 1e-3, "bfloat16": 0.5, "float16": 0.05}
"""Largest gap of a label's log-probability that rounding explains, by dtype: some hundred units in the last place."""

FLIPPED = 0.01
"""Largest share of answers that may change where weights of a half dtype were merged: they are rounded once more than
with a delta beside them, and that turns near ties."""

Again = Callable[[AdaptedModel], Sequence[Prediction]]
"""Predicts every test example again with the given model, in the order of the first predictions."""


def plain_adapter(folder: Path, base: PreTrainedModel) -> AdaptedModel:
    """The adapter in `folder` as `peft` alone loads it onto a copy of `base`, with its representation edit."""
    model, peft = copy.deepcopy(base), None
    if (folder / ADAPTER).exists():
        peft = load_adapter(model, folder)
        model = cast(PreTrainedModel, peft.get_base_model())
    edit = read_representation(folder, load(Description, folder / ABOUT), model)
    return replace(_bare(model, peft), representation=edit)


def plain_merged(folder: Path, like: PreTrainedModel) -> AdaptedModel:
    """The checkpoint in `folder` as `transformers` alone loads it, on the device of `like`."""
    model: nn.Module = AutoModelForCausalLM.from_pretrained(folder, dtype=like.dtype)
    return _bare(cast(PreTrainedModel, model.to(like.device).eval()), None)


def check(
    name: str, exported: AdaptedModel, first: Sequence[Prediction], again: Again, *, merged: bool = False
) -> tuple[float, float]:
    """Largest gap of a label's log-probability, and the share of equal answers.

    Raises `ExportMismatch` when any answer differs (of `merged` half weights, more than `FLIPPED`) or is no number, or
    a gap is larger than rounding explains.
    """
    try:
        second = again(exported)
    except ModelError as error:
        raise ExportMismatch(f"{name}: {error}") from error
    gap = float(np.abs(_log_probabilities(first) - _log_probabilities(second)).max())
    dtype = str(exported.model.dtype).removeprefix("torch.")
    differ = [(a, b) for a, b in zip(first, second, strict=True) if a.predicted != b.predicted]
    if len(differ) > (FLIPPED if merged and dtype != "float32" else 0) * len(first):
        before, after = differ[0]
        raise ExportMismatch(
            f"{name}: {len(differ)} of {len(first)} test predictions differ from those of the model in memory (first: "
            f"{before.test} example {before.id}, {before.predicted} became {after.predicted}; largest gap of a "
            f"log-probability {gap:.1e}); export in float32 (model.dtype=float32)"
        )
    if not gap <= GAP[dtype]:  # nan is no gap at all
        raise ExportMismatch(
            f"{name}: log-probabilities differ by up to {gap:.1e}, allowed {GAP[dtype]:.0e}; export in float32"
        )
    return gap, 1 - len(differ) / len(first)


def _bare(model: PreTrainedModel, peft: PeftModel | None) -> AdaptedModel:
    return AdaptedModel("export", model, peft, None, None, {}, 0, 0)


def _log_probabilities(rows: Sequence[Prediction]) -> np.ndarray:
    values = [list(row.probabilities.values()) for row in rows]
    with np.errstate(divide="ignore"):
        return np.asarray(np.maximum(np.log(np.array(values)), np.log(torch.finfo(torch.float32).tiny)))
