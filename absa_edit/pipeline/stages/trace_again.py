"""Traces beside the one that the plan is made of: of the base model, and of the model after it was edited."""

from __future__ import annotations

import logging
from dataclasses import replace

from safetensors.torch import load_file

from absa_edit.context import Context
from absa_edit.errors import CannotMerge, DataError
from absa_edit.export.folder import merged
from absa_edit.methods.base import adapt
from absa_edit.pipeline.stages.methods import fit_key, forget_last_copy
from absa_edit.pipeline.stages.trace import trace_stage
from absa_edit.records import EditPlan, Trace
from absa_edit.results import TraceAgain
from absa_edit.storage import content_hash
from absa_edit.tracing.effects import TraceEffects, trace_effects
from absa_edit.tracing.fidelity import agreement

log = logging.getLogger("absa_edit")


def trace_base(ctx: Context) -> TraceEffects | None:
    """The trace of the base model, in the folder `base`; None where the filter keeps no example of it."""
    trace = _traced(replace(ctx, folder=ctx.folder / "base"), "the base model")
    return None if trace is None else _effects(ctx, trace, "base")


def trace_edited(
    ctx: Context, before: Trace, method: str, plan: EditPlan | None
) -> tuple[TraceAgain, TraceEffects] | None:
    """The trace of the model that `method` made, in the folder `edited`, against the trace `before`.

    None, with a warning, where the method cannot be folded into the weights or the filter keeps no example.
    """
    forget_last_copy(ctx)
    settings = ctx.settings.method[method]
    adapted = adapt(ctx, settings, plan)
    adapted.load_trained(load_file(ctx.folder / "methods" / method / "weights.safetensors"))
    if adapted.representation:
        log.warning("trace.again: %s edits states, and no weights: its model is not traced", method)
        return None
    try:
        model = merged(adapted)
    except CannotMerge as error:
        log.warning("trace.again: %s is not traced: %s", method, error)
        return None
    sha256 = content_hash("edited", fit_key(ctx, method, settings, plan))
    lm = replace(ctx.lm, model=model, sha256=sha256)
    after = _traced(replace(ctx, lm=lm, folder=ctx.folder / "edited"), f"the model after {method}")
    if after is None:
        return None
    both = set(before.example_ids) & set(after.example_ids)
    draws, rng = ctx.settings.score.resamples, ctx.rng("trace again")
    shared = agreement(before.of(both), after.of(both), draws=draws, rng=rng) if both else None
    effects = _effects(ctx, after, "edited")
    if shared:
        log.info(
            "trace.again: against the trace before, on %d examples: rank correlation %s %%, %s %% of the %d strongest "
            "cells the same", len(both), shared.rank_correlation.percent(), shared.overlap.percent(), shared.top,
        )  # fmt: skip
    return TraceAgain(method, effects.summary, len(both), shared), effects


def _traced(ctx: Context, of: str) -> Trace | None:
    log.info("trace: of %s", of)
    try:
        return trace_stage(ctx)
    except DataError as error:
        log.warning("trace: of %s: %s", of, error)
        return None


def _effects(ctx: Context, trace: Trace, use: str) -> TraceEffects:
    return trace_effects(trace, draws=ctx.settings.score.resamples, rng=ctx.rng(f"effects {use}"))
