"""Localisers: where an edit goes, each in a file of its own, all returning an `EditPlan`."""

from __future__ import annotations

import numpy as np
from transformers import PreTrainedModel

from absa_edit.errors import PlanError
from absa_edit.localizers.causal_trace import site_count, traced_plan
from absa_edit.localizers.plan import every_layer, plan_of, read_plan, sites_of
from absa_edit.localizers.random_control import random_plan
from absa_edit.localizers.settings import Localiser, LocateSettings
from absa_edit.model.block_runner import BlockRunner
from absa_edit.records import EditPlan, Trace


def check(settings: LocateSettings, model: PreTrainedModel) -> None:
    """Raise the `PlanError` that `locate` would raise whatever a trace finds: one may take hours."""
    if settings.kind is Localiser.trace:
        sites = every_layer(model, settings.parts)
        site_count(settings, BlockRunner(model).layers, len(sites))
        plan_of(model, sites, settings.rank, "trace")
    else:
        locate(settings, model, None, draws=0, rng=np.random.default_rng())


def locate(
    settings: LocateSettings,
    model: PreTrainedModel,
    trace: Trace | None,
    *,
    draws: int,
    rng: np.random.Generator,
) -> EditPlan:
    """The plan of the localiser that `settings` name.

    Raises `PlanError` when it needs a trace and there is none, or its sites are not in the model.
    """
    if settings.kind is Localiser.trace:
        if trace is None:
            raise PlanError("locate=trace needs a trace: add `trace` to stages, or use locate=manual")
        return traced_plan(trace, model, settings, draws=draws, rng=rng)
    if settings.kind is Localiser.file:
        return read_plan(str(settings.plan), model)
    if settings.kind is Localiser.all:
        return plan_of(model, every_layer(model, settings.parts), settings.rank, "all")
    if settings.kind is Localiser.manual:
        return plan_of(model, sites_of(model, settings.layers, settings.parts), settings.rank, "manual")
    sites = every_layer(model, settings.parts)
    first = sites[: site_count(settings, BlockRunner(model).layers, len(sites))]
    return random_plan(plan_of(model, first, settings.rank, "manual"), model, rng=rng)
