"""The trace of a run: averaged over examples, of single ones token by token, and what is said of it."""

from __future__ import annotations

import logging
from dataclasses import replace

from absa_edit.context import Context
from absa_edit.data.prompts import Prompt
from absa_edit.model.settings import Dtype
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


def trace_found(run: Context) -> Trace | None:
    """The trace in the run's folder, if it was made with these settings."""
    folder = run.folder / "trace"
    if found := load_trace(folder, run.trace_key()):
        log.info("trace: found in %s", folder)
    return found


def trace_stage(run: Context) -> Trace:
    """The trace of a seeded draw of training examples."""
    if found := trace_found(run):
        return found
    settings = run.settings
    if settings.trace.engine is Engine.exact and settings.trace.dtype is Dtype.bfloat16:
        log.warning("trace: products in bfloat16, an approximation: effects move in the third digit")
    prompts = _prompts_to_trace(run)
    trace = traced(
        run.lm,
        prompts,
        run.labels,
        settings.trace,
        settings.prompt,
        seed=settings.seed,
        partial=run.folder / "trace" / "partial.jsonl",
        progress=run.progress,
    )
    save_trace(trace, run.folder / "trace", run.trace_key())
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


def grids_found(run: Context) -> tuple[TokenGrid, ...] | None:
    """The examples token by token in the run's folder, if they were made with these settings."""
    return load_token_grids(run.folder / "trace", _grids_key(run))


def token_stage(run: Context, trace: Trace) -> tuple[TokenGrid, ...]:
    """The first kept examples token by token, as many as the settings ask for."""
    settings = run.settings.trace
    if not settings.grids:
        return ()
    if found := grids_found(run):
        return found
    every, ids = _prompts_to_trace(run), trace.example_ids[: settings.grids]
    grids = token_grids(
        run.lm,
        [p for p in every if p.example.id in ids],
        run.labels,
        settings,
        Corrupter.of(run.lm, every, settings, run.settings.prompt, run.settings.seed),
        progress=run.progress,
    )
    save_token_grids(grids, run.folder / "trace", _grids_key(run))
    return grids


def _grids_key(run: Context) -> str:
    return run.key("tokens", replace(run.settings.trace, checked=1, batch_tokens=1))


def _prompts_to_trace(run: Context) -> list[Prompt]:
    """The seeded draw of training examples that is looked at."""
    examples = run.splits.train.examples
    chosen = run.rng("trace examples").permutation(len(examples))[: run.settings.trace.examples]
    return run.encode(replace(run.splits.train, examples=tuple(examples[i] for i in sorted(chosen))))


def effects_stage(run: Context, trace: Trace) -> TraceEffects:
    """The averaged trace and its summary; of an estimated one also how it agrees with the exact engine."""
    effects = trace_effects(trace, draws=run.settings.score.resamples, rng=run.rng("effects"))
    if run.settings.trace.engine is Engine.exact:
        return effects
    path = run.folder / "trace" / "agreement.json"
    key = run.key("agreement", run.trace_key(), run.settings.trace.checked)
    found = load_kept(Agreement, path, key)
    if found is None:
        found = _compared(run, trace)
        if found is None:
            log.warning("trace: how far the estimates agree with the exact engine cannot be said: no cells differ")
            return effects
        save_kept(found, path, key)
    log.info(
        "trace: %s against the exact engine on %d examples: rank correlation %s %%, %s %% of the %d strongest "
        "cells the same",
        run.settings.trace.engine.value, found.rank_correlation.n, found.rank_correlation.percent(),
        found.overlap.percent(), found.top,
    )  # fmt: skip
    return replace(effects, summary=replace(effects.summary, agreement=found))


def _compared(run: Context, trace: Trace) -> Agreement | None:
    """The first kept examples traced exactly, against what `trace` says of them."""
    settings = run.settings
    checked = trace.of(trace.example_ids[: settings.trace.checked])
    every = _prompts_to_trace(run)
    exactly = replace(settings.trace, engine=Engine.exact, dtype=Dtype.float32, filter=False)
    exact = trace_prompts(
        run.lm,
        [p for p in every if p.example.id in set(checked.example_ids)],
        run.labels,
        exactly,
        settings.prompt,
        seed=settings.seed,
        partial=run.folder / "trace" / "partial_agreement.jsonl",
        progress=run.progress,
        corrupter=Corrupter.of(run.lm, every, exactly, settings.prompt, settings.seed),
    )
    log.info("trace: the comparison with the exact engine took %.0f s", exact.seconds)
    return agreement(exact, checked, draws=1000, rng=run.rng("agreement"))
