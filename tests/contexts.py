"""What plug-ins are given, made of a model alone."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from absa_edit.context import Context
from absa_edit.localizers import base as localizers
from absa_edit.localizers.settings import LocateSettings
from absa_edit.methods import base as methods
from absa_edit.methods.adapted_model import AdaptedModel
from absa_edit.methods.settings import MethodSettings
from absa_edit.model.loading import LanguageModel
from absa_edit.model.sources import reviewlm
from absa_edit.records import EditPlan, Trace


def context(model: PreTrainedModel, **settings: Any) -> Context:
    """A context without data or folders."""
    return Context.of(LanguageModel("none", "none", model, _tokenizer(), "0"), **settings)


@cache
def _tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(reviewlm())


def adapt(model: PreTrainedModel, settings: MethodSettings, plan: EditPlan | None, *, seed: int) -> AdaptedModel:
    """What a method trains on a copy of `model`."""
    return methods.adapt(context(model, seed=seed), settings, plan)


def locate(settings: LocateSettings, model: PreTrainedModel, trace: Trace | None, *, rng: Any) -> EditPlan:
    """Where a localizer would edit `model`."""
    return localizers.locate(replace(context(model), trace=trace), settings, rng)
