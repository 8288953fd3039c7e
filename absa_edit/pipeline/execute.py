"""The stages in order. Each result stays in the run folder under a hash of what it depends on, to be found again."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from absa_edit.context import Context, git_commit, versions
from absa_edit.errors import ExportMismatch, PlanError
from absa_edit.evaluation.scoring import compare
from absa_edit.localizers.base import check, locate
from absa_edit.localizers.settings import Localiser
from absa_edit.pipeline.stages.export import export_stage, method_to_export
from absa_edit.pipeline.stages.methods import Rows, base_states, own_plan, run_method
from absa_edit.pipeline.stages.report import report_stage
from absa_edit.pipeline.stages.trace import grids_found, token_stage, trace_found, trace_stage, trace_summary
from absa_edit.records import EditPlan, TokenGrid, Trace
from absa_edit.report.terminal import print_results
from absa_edit.results import SCHEMA, MethodRecord, RunRecord, TraceSummary
from absa_edit.settings import Stage
from absa_edit.storage import load, write_json

log = logging.getLogger("absa_edit")


def execute(run: Context, *, console: Console, command: str | None = None, root: Path | None) -> RunRecord:
    """Run the stages that the settings name and fill the run folder; its `results.json` as a record.

    `root` is the clone that the package is run from, whose commit the record names; None for an installed package.
    """
    settings = run.settings
    for notice in run.splits.notices:
        log.warning(notice)
    exported = method_to_export(run, settings.method) if Stage.export in settings.stages else None
    if Stage.locate in settings.stages:
        for chosen in settings.localisers():
            check(chosen, run.lm.model)
    seconds: dict[str, float] = {}
    trace: Trace | None = None
    summary: TraceSummary | None = None
    plan: EditPlan | None = None
    grids: tuple[TokenGrid, ...] = ()
    if Stage.trace in settings.stages:
        with _timed(seconds, "trace"):
            trace = trace_stage(run)
            grids = token_stage(run, trace)
            summary = trace_summary(run, trace)
    elif trace := trace_found(run):  # by an earlier run of that stage
        grids, summary = grids_found(run) or (), trace_summary(run, trace)
    if Stage.locate in settings.stages:
        with _timed(seconds, "locate"):
            plan = locate(settings.locate, run.lm.model, trace, draws=200, rng=run.rng("locate"))
            write_json(plan, run.folder / "plan.json")
    records: dict[str, MethodRecord] = {}
    rows: dict[str, Rows] = {}
    if Stage.methods in settings.stages:
        plans = _plans(run, plan, trace)
        exported = exported and method_to_export(run, plans)  # it may be one that was left out
        tests = {data.name: run.encode(data) for data in run.splits.tests}
        base = base_states(run, plans.values())
        for name, own in plans.items():
            with _timed(seconds, name):
                records[name], rows[name] = run_method(run, name, settings.method[name], own, tests, base)
    draws = settings.score.resamples
    record = RunRecord(
        schema=SCHEMA,
        experiment=run.experiment,
        seed=settings.seed,
        data={
            "train": run.splits.train.summary(),
            "dev": run.splits.dev.summary(),
            **{f"test/{data.name}": data.summary() for data in run.splits.tests},
        },
        model=run.lm.summary(),
        trace=summary,
        plan=plan,
        methods=records,
        comparisons=compare(_pairs(list(records)), rows, draws=draws, rng=run.rng("compare")),
        export=None,
        seconds=seconds,
        versions=versions(),
        git=git_commit(root),
        config_hash=run.config_hash(),
        task=settings.task.kind,
        labels=run.task.labels,
    )
    write_json(record, run.folder / "results.json")  # kept even if the export fails its proof
    mismatch: ExportMismatch | None = None
    if exported:
        try:
            with _timed(seconds, "export"):
                record = replace(record, export=export_stage(run, exported, record, rows[exported], tests))
        except ExportMismatch as error:
            mismatch = error  # it ends the run, but what was found is still told
            record = replace(record, export_failure=str(error))
        write_json(record, run.folder / "results.json")
    load(RunRecord, run.folder / "results.json")  # what is written must be readable as what it claims to be
    try:
        if Stage.report in settings.stages or settings.stages == [Stage.trace]:  # a trace alone is to be looked at
            report_stage(run, record, trace, grids, rows, command)
        elif (run.folder / "report.md").exists():
            log.warning("report.md and report.html are of before this run: add report to stages")
        if records:
            print_results(record, console)
    finally:
        if mismatch:
            raise mismatch
    return record


def _plans(run: Context, plan: EditPlan | None, trace: Trace | None) -> dict[str, EditPlan | None]:
    """Each method's own plan, found out before anything is trained; a control that cannot be drawn is left out."""
    plans = {}
    for name, method in run.settings.method.items():
        try:
            plans[name] = own_plan(run, name, method, plan, trace)
        except PlanError as error:
            if getattr(method, "locate", None) is not Localiser.random:
                raise
            log.warning("%s is left out: %s", name, error)
    return plans


def _pairs(methods: Sequence[str]) -> list[tuple[str, str]]:
    """The edit against every other method; without one, the first method against the others."""
    focus = "edit" if "edit" in methods else next(iter(methods), None)
    return [(focus, other) for other in methods if other != focus] if focus else []


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - began
