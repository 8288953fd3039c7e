"""The trace of a run: averaged over examples, of single ones token by token, and what is said of it."""

from __future__ import annotations

import logging
from dataclasses import replace

from absa_edit.context import Context
from absa_edit.model.settings import Dtype
from absa_edit.pipeline.shared_cache import fetch, share
from absa_edit.records import TokenGrid, Trace
from absa_edit.results import Agreement
from absa_edit.storage import load_kept, load_token_grids, load_trace, save_kept, save_token_grids, save_trace
from absa_edit.tracing.corruption import Corrupter
from absa_edit.tracing.effects import TraceEffects, trace_effects
from absa_edit.tracing.fidelity import agreement
from absa_edit.tracing.settings import Engine
from absa_edit.tracing.token_traces import token_grids
from absa_edit.tracing.trace import trace as traced
from absa_edit.tracing.tracer import trace_prompts

log = logging.getLogger("absa_edit")

TRACE_FILES = ("trace.safetensors", "trace.json")
TOKEN_FILES = ("tokens.safetensors", "tokens.json")


def trace_found(ctx: Context) -> Trace | None:
    """The trace in the run's folder, if it was made with these settings."""
    folder = ctx.folder / "trace"
    if kept := load_trace(folder, ctx.trace_key()):
        log.info("trace: found in %s", folder)
    return kept


def trace_stage(ctx: Context) -> Trace:
    """The trace of a seeded draw of training examples."""
    if kept := trace_found(ctx):
        return kept
    if fetch(ctx, "trace", ctx.trace_key(), ctx.folder / "trace", TRACE_FILES):
        log.info("trace: shared by an earlier run")
        if kept := trace_found(ctx):
            return kept
    settings = ctx.settings
    if settings.trace.engine is Engine.exact and settings.trace.dtype is Dtype.bfloat16:
        log.warning("trace: products in bfloat16, an approximation: effects move in the third digit")
    prompts = ctx.prompts_to_trace()
    trace = traced(
        ctx.lm,
        prompts,
        ctx.labels,
        settings.trace,
        settings.prompt,
        seed=settings.seed,
        partial=ctx.folder / "trace" / "partial.jsonl",
        progress=ctx.progress,
    )
    save_trace(trace, ctx.folder / "trace", ctx.trace_key())
    share(ctx, "trace", ctx.trace_key(), ctx.folder / "trace", TRACE_FILES)
    c = trace.counts
    if c.seen < len(prompts):
        log.warning("trace: %d of %d examples have no twin that lines up", len(prompts) - c.seen, len(prompts))
    log.info(
        "trace: %d examples, %d kept (clean run wrong %d, corrupted run right %d), %.0f s",
        c.seen, c.kept, c.clean_wrong, c.corrupted_right, trace.seconds,
    )  # fmt: skip
    if trace.exact_cells:
        log.info("trace: %d of %d cells run, the others estimated", len(trace.exact_cells), trace.restored[0].size)
    return trace


def grids_found(ctx: Context) -> tuple[TokenGrid, ...] | None:
    """The examples token by token in the run's folder, if they were made with these settings."""
    return load_token_grids(ctx.folder / "trace", _grids_key(ctx))


def token_stage(ctx: Context, trace: Trace) -> tuple[TokenGrid, ...]:
    """The first kept examples token by token, as many as the settings ask for."""
    settings = ctx.settings.trace
    if not settings.grids:
        return ()
    fetched = grids_found(ctx) or fetch(ctx, "tokens", _grids_key(ctx), ctx.folder / "trace", TOKEN_FILES)
    if fetched and (kept := grids_found(ctx)):
        return kept
    prompts, ids = ctx.prompts_to_trace(), trace.example_ids[: settings.grids]
    grids = token_grids(
        ctx.lm,
        [p for p in prompts if p.example.id in ids],
        ctx.labels,
        settings,
        Corrupter.of(ctx.lm, prompts, settings, ctx.settings.prompt, ctx.settings.seed),
        progress=ctx.progress,
    )
    save_token_grids(grids, ctx.folder / "trace", _grids_key(ctx))
    share(ctx, "tokens", _grids_key(ctx), ctx.folder / "trace", TOKEN_FILES)
    return grids


def _grids_key(ctx: Context) -> str:
    return ctx.key("tokens", replace(ctx.settings.trace, checked=1, batch_tokens=1))


def effects_stage(ctx: Context, trace: Trace) -> TraceEffects:
    """The averaged trace and its summary; of an estimated one also how it agrees with the exact engine."""
    effects = trace_effects(trace, draws=ctx.settings.score.resamples, rng=ctx.rng("effects"))
    if ctx.settings.trace.engine is Engine.exact:
        return effects
    path = ctx.folder / "trace" / "agreement.json"
    key = ctx.key("agreement", ctx.trace_key(), ctx.settings.trace.checked)
    fidelity = load_kept(Agreement, path, key)
    if fidelity is None and fetch(ctx, "agreement", key, path.parent, [path.name]):
        fidelity = load_kept(Agreement, path, key)
    if fidelity is None:
        fidelity = _compared(ctx, trace)
        if fidelity is None:
            log.warning("trace: how far the estimates agree with the exact engine cannot be said: no cells differ")
            return effects
        save_kept(fidelity, path, key)
        share(ctx, "agreement", key, path.parent, [path.name])
    log.info(
        "trace: %s against the exact engine on %d examples: rank correlation %s %%, %s %% of the %d strongest "
        "cells the same",
        ctx.settings.trace.engine.value, fidelity.rank_correlation.n, fidelity.rank_correlation.percent(),
        fidelity.overlap.percent(), fidelity.top,
    )  # fmt: skip
    return replace(effects, summary=replace(effects.summary, agreement=fidelity))


def _compared(ctx: Context, trace: Trace) -> Agreement | None:
    """The first kept examples traced exactly, against what `trace` says of them."""
    settings = ctx.settings
    checked = trace.of(trace.example_ids[: settings.trace.checked])
    prompts = ctx.prompts_to_trace()
    exactly = replace(settings.trace, engine=Engine.exact, dtype=Dtype.float32, filter=False)
    exact = trace_prompts(
        ctx.lm,
        [p for p in prompts if p.example.id in set(checked.example_ids)],
        ctx.labels,
        exactly,
        settings.prompt,
        seed=settings.seed,
        partial=ctx.folder / "trace" / "partial_agreement.jsonl",
        progress=ctx.progress,
        corrupter=Corrupter.of(ctx.lm, prompts, exactly, settings.prompt, settings.seed),
    )
    log.info("trace: the comparison with the exact engine took %.0f s", exact.seconds)
    return agreement(exact, checked, draws=1000, rng=ctx.rng("agreement"))
