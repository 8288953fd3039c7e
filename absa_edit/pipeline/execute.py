"""The stages in order. Each result stays in the run folder under a hash of what it depends on, to be found again."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from absa_edit.context import Context
from absa_edit.errors import ExportMismatch, PlanError
from absa_edit.evaluation.across_seeds import pool
from absa_edit.evaluation.scoring import compare
from absa_edit.localizers.base import check
from absa_edit.localizers.settings import LOCALIZERS
from absa_edit.methods.base import check as check_method
from absa_edit.methods.base import check_scale, method_of
from absa_edit.pipeline.prepare import git_commit, versions
from absa_edit.pipeline.stages.adapt import trace_key_found, traced_context
from absa_edit.pipeline.stages.analyses import run_analysis
from absa_edit.pipeline.stages.export import export_stage, method_to_export
from absa_edit.pipeline.stages.locate import locate_stage
from absa_edit.pipeline.stages.methods import Rows, base_states, own_plan, prompts_of, run_method
from absa_edit.pipeline.stages.report import report_stage
from absa_edit.pipeline.stages.retention import base_retention, check_retention
from absa_edit.pipeline.stages.trace import effects_stage, grids_found, token_stage, trace_stage
from absa_edit.pipeline.stages.trace_again import trace_base, trace_edited
from absa_edit.records import EditPlan, TokenGrid, Trace
from absa_edit.report.lookup import questions
from absa_edit.report.terminal import print_results
from absa_edit.results import SCHEMA, Adaptation, AnalysisRecord, MethodRecord, Retention, RunRecord, TraceAgain
from absa_edit.settings import Stage
from absa_edit.storage import load, load_trace, write_json
from absa_edit.tracing.effects import TraceEffects
from absa_edit.tracing.settings import TracedModel

log = logging.getLogger("absa_edit")


def execute(ctx: Context, *, console: Console, command: str | None = None, root: Path | None) -> RunRecord:
    """Run the stages that the settings name and fill the run folder; its `results.json` as a record.

    `root` is the clone that the package is run from, whose commit the record names; None for an installed package.
    """
    settings = ctx.settings
    for notice in ctx.splits.notices:
        log.warning(notice)
    exported = method_to_export(ctx, settings.method) if Stage.export in settings.stages else None
    if Stage.locate in settings.stages:
        for chosen in settings.localizers():
            check(ctx, chosen)
    if Stage.methods in settings.stages:
        _check_methods(ctx)
    seconds: dict[str, float] = {}
    trace: Trace | None = None
    effects: TraceEffects | None = None
    plan: EditPlan | None = None
    grids: tuple[TokenGrid, ...] = ()
    adaptation: Adaptation | None = None
    beside: dict[str, TraceEffects] = {}
    if Stage.trace in settings.stages or _was_traced(ctx):  # by an earlier run of that stage
        with _timed(seconds, "adapt"):
            traced, adaptation = traced_context(ctx)
        with _timed(seconds, "trace"):
            trace = trace_stage(traced)
            grids = token_stage(traced, trace) if Stage.trace in settings.stages else grids_found(traced) or ()
            effects = effects_stage(traced, trace)
        if settings.trace.model is TracedModel.both:
            with _timed(seconds, "trace of the base"):
                base_effects = trace_base(ctx)
            beside |= {"base": base_effects} if base_effects else {}
        ctx = replace(ctx, trace=trace, traced_as=traced.trace_key())
        del traced  # and the adapted model with it
    if Stage.locate in settings.stages:
        with _timed(seconds, "locate"):
            plan = locate_stage(ctx)
    records: dict[str, MethodRecord] = {}
    before: Retention | None = None
    rows: dict[str, Rows] = {}
    if Stage.methods in settings.stages:
        plans = _plans(ctx, plan)
        exported = exported and method_to_export(ctx, plans)  # it may be one that was left out
        tests = {data.name: ctx.encode(data) for data in ctx.splits.tests}
        prompts = {name: prompts_of(ctx, settings.method[name], tests) for name in plans}  # before anything is trained
        check_retention(ctx)
        base = base_states(ctx, plans.values())
        for name, method_plan in plans.items():
            with _timed(seconds, name):
                records[name], rows[name] = run_method(
                    ctx, name, settings.method[name], method_plan, prompts[name], base
                )
        before = next((r.retention for r in records.values() if r.is_base), None)
        if before is None and records:
            with _timed(seconds, "base model"):
                before = base_retention(ctx, tests)
    again: TraceAgain | None = None
    if settings.trace.again and trace and (edited := exported or _first_trained(ctx, records)):
        with _timed(seconds, "trace again"):
            result = trace_edited(ctx, trace, edited, records[edited].plan)
        if result:
            again, beside["edited"] = result
    analyses: dict[str, AnalysisRecord] = {}
    if Stage.analyses in settings.stages:
        for name in settings.analysis:
            with _timed(seconds, name):
                analyses[name] = run_analysis(ctx, name)
    record = RunRecord(
        schema=SCHEMA,
        experiment=ctx.experiment,
        seed=settings.seed,
        data={
            "train": ctx.splits.train.summary(),
            "dev": ctx.splits.dev.summary(),
            **{f"test/{data.name}": data.summary() for data in ctx.splits.tests},
        },
        model=ctx.lm.summary(),
        trace=effects.summary if effects else None,
        adaptation=adaptation,
        base_trace=beside["base"].summary if "base" in beside else None,
        trace_again=again,
        plan=plan,
        methods=records,
        before=before,
        comparisons=(),
        export=None,
        seconds=seconds,
        versions=versions(),
        git=git_commit(root),
        config_hash=ctx.config_hash(),
        task=settings.task.kind,
        labels=ctx.task.labels,
        analyses=analyses,
    )
    record = _compared(ctx, record, rows)
    write_json(record, ctx.folder / "results.json")  # kept even if the export fails its proof
    mismatch: ExportMismatch | None = None
    if exported:
        try:
            with _timed(seconds, "export"):
                record = replace(record, export=export_stage(ctx, exported, record, rows[exported], tests))
        except ExportMismatch as error:
            mismatch = error  # it ends the run, but what was found is still told
            record = replace(record, export_failure=str(error))
        write_json(record, ctx.folder / "results.json")
    load(RunRecord, ctx.folder / "results.json")  # what is written must be readable as what it claims to be
    try:
        if Stage.report in settings.stages or settings.stages == [Stage.trace]:  # a trace alone is to be looked at
            report_stage(ctx, record, trace, effects, grids, rows, command, beside)
        elif (ctx.folder / "report.md").exists():
            log.warning("report.md and report.html are of before this run: add report to stages")
        if records or analyses:
            print_results(record, console)
    finally:
        if mismatch:
            raise mismatch
    return record


def _check_methods(ctx: Context) -> None:
    """Raise what will keep a method from training this model, wherever the plan turns out to be."""
    for method in ctx.settings.method.values():
        check_scale(method)
        if method_of(method).located(method) and Stage.locate in ctx.settings.stages:
            method_of(method).check(ctx.lm.runner, None, method)
        else:
            check_method(ctx.lm.runner, method, None)


def _plans(ctx: Context, plan: EditPlan | None) -> dict[str, EditPlan | None]:
    """Each method's own plan, found out before anything is trained; a control that cannot be drawn is left out."""
    plans = {}
    for name, method in ctx.settings.method.items():
        try:
            plans[name] = own_plan(ctx, name, method, plan)
        except PlanError as error:
            place = getattr(method, "locate", None)
            if place is None or not LOCALIZERS[place].follows:
                raise
            log.warning("%s is left out: %s", name, error)
    return plans


def _compared(ctx: Context, record: RunRecord, rows: dict[str, Rows]) -> RunRecord:
    """The record with its paired comparisons, by test set and over all of one standing."""
    pairs, asked_of, draws = _pairs(ctx, list(record.methods)), questions(record), ctx.settings.score.resamples
    by_seed = {name: {test: {record.seed: r} for test, r in tests.items()} for name, tests in rows.items()}
    return replace(
        record,
        comparisons=compare(pairs, rows, asked_of, draws=draws, rng=ctx.rng("compare")),
        pooled=pool(pairs, by_seed, asked_of, draws=draws, rng=ctx.rng("pooled")),
    )


def _pairs(ctx: Context, methods: Sequence[str]) -> list[tuple[str, str]]:
    """The pairs that the settings name; without any, the exported method, or the first trained one, with each other."""
    if ctx.settings.compare:
        return [(a, b) for a, b in ctx.settings.compare if a in methods and b in methods]
    chosen = ctx.settings.export.method
    focus = chosen if chosen in methods else _first_trained(ctx, methods) or next(iter(methods), None)
    return [(focus, other) for other in methods if other != focus] if focus else []


def _first_trained(ctx: Context, methods: Iterable[str]) -> str | None:
    return next((name for name in methods if method_of(ctx.settings.method[name]).trains), None)


def _was_traced(ctx: Context) -> bool:
    key = trace_key_found(ctx)
    return key is not None and load_trace(ctx.folder / "trace", key) is not None


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - began
