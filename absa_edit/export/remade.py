"""A method that adds parts to the model, made again of its export: by its settings, its plan and what it trained."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file

from absa_edit.context import Context
from absa_edit.errors import RecordError
from absa_edit.export.folder import ABOUT, PARTS, PLAN, Description
from absa_edit.methods.adapted_model import AdaptedModel
from absa_edit.methods.base import adapt
from absa_edit.methods.settings import METHODS, MethodSettings
from absa_edit.model.loading import LanguageModel
from absa_edit.records import EditPlan
from absa_edit.storage import from_json, load


def remade(folder: Path, lm: LanguageModel) -> AdaptedModel:
    """What the method of the export in `folder` made of a copy of `lm`, with what it trained: it can be written again.

    Raises `RecordError` for a method that is not registered here or knows other settings, and what reading its weights
    raises: a `SafetensorError` for a cut file, a `KeyError` for other parameters.
    """
    about = load(Description, folder / ABOUT)
    if about.kind not in METHODS:
        raise RecordError(
            f"{folder}: made by the method {about.kind}, which is not there; import the file that defines it first"
        )
    settings: MethodSettings = from_json(METHODS[about.kind].settings, about.settings, folder)
    plan = load(EditPlan, folder / PLAN) if PLAN in about.files else None
    adapted = adapt(Context.of(lm, about.task(), prompt=about.prompt), settings, plan)
    adapted.load_trained(load_file(folder / PARTS))
    return adapted
