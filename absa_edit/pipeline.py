"""The stages in order. Each result stays in the run folder under a hash of what it depends on, to be found again."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from safetensors.torch import load_file

from absa_edit.adapt import Adapted, adapt
from absa_edit.config import Dtype, Edit, Engine, Localiser, Lora, Stage, ZeroShot
from absa_edit.data.prompts import Prompt
from absa_edit.errors import ExportMismatch, PlanError, SettingsError
from absa_edit.evaluate.score import compare
from absa_edit.export.card import adapter_card, add_figures, merged_card
from absa_edit.export.folder import describe, write_adapter, write_merged
from absa_edit.export.parity import check, plain_adapter, plain_merged
from absa_edit.locate import locate
from absa_edit.method import Rows, base_states, own_plan, predict, run_method, tracker_for
from absa_edit.records import (
    SCHEMA,
    EditPlan,
    ExportRecord,
    MethodRecord,
    Prediction,
    RunRecord,
    TokenGrid,
    Trace,
    TraceSummary,
)
from absa_edit.report.figures import write_figures
from absa_edit.report.html import report_html
from absa_edit.report.markdown import report_markdown
from absa_edit.report.publish import publish_comparison, publish_export, publish_trace
from absa_edit.report.terminal import print_results
from absa_edit.report.token_heatmap import token_heatmap
from absa_edit.run import Run, git_commit, versions
from absa_edit.storage import atomic, load, load_token_grids, load_trace, save_token_grids, save_trace, write_json
from absa_edit.trace.agreement import agreement
from absa_edit.trace.auto import trace_auto
from absa_edit.trace.corrupt import Corrupter
from absa_edit.trace.effects import average_effects, average_head_effects, summarise
from absa_edit.trace.tokens import token_grids
from absa_edit.trace.tracing import trace_prompts

log = logging.getLogger("absa_edit")


def execute(run: Run, *, console: Console, command: str | None = None, root: Path) -> RunRecord:
    """Run the stages that the settings name and fill the run folder; its `results.json` as a record."""
    settings = run.settings
    for notice in run.splits.notices:
        log.warning(notice)
    exported = _export_method(run) if Stage.export in settings.stages else None
    seconds: dict[str, float] = {}
    trace = plan = None
    grids: tuple[TokenGrid, ...] = ()
    if Stage.trace in settings.stages:
        with _timed(seconds, "trace"):
            trace = _trace(run)
            grids = _token_grids(run, trace)
    if Stage.locate in settings.stages:
        with _timed(seconds, "locate"):
            plan = locate(settings.locate, run.lm.model, trace, draws=200, rng=run.rng("locate"))
            write_json(plan, run.folder / "plan.json")
    records: dict[str, MethodRecord] = {}
    rows: dict[str, Rows] = {}
    if Stage.methods in settings.stages:
        plans = _plans(run, plan, trace)
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
        trace=_summary(run, trace) if trace else None,
        plan=plan,
        methods=records,
        comparisons=compare(_pairs(list(records)), rows, draws=draws, rng=run.rng("compare")),
        export=None,
        seconds=seconds,
        versions=versions(),
        git=git_commit(root),
        config_hash=run.config_hash(),
    )
    write_json(record, run.folder / "results.json")  # kept even if the export fails its proof
    if exported:
        with _timed(seconds, "export"):
            record = replace(record, export=_export(run, exported, record, rows[exported], tests))
        write_json(record, run.folder / "results.json")
    load(RunRecord, run.folder / "results.json")  # what is written must be readable as what it claims to be
    if Stage.report in settings.stages or settings.stages == [Stage.trace]:  # a trace alone is there to be looked at
        _report(run, record, trace, grids, rows, command)
    if records:
        print_results(record, console)
    return record


def _trace(run: Run) -> Trace:
    settings = run.settings
    key = run.key("trace", replace(settings.trace, grids=0))
    folder = run.folder / "trace"
    if found := load_trace(folder, key):
        log.info("trace: found in %s", folder)
        return found
    if settings.trace.dtype is not Dtype.float32:
        log.warning("trace: products in %s, an approximation: effects move in the third digit", settings.trace.dtype)
    prompts = _prompts_to_trace(run)
    trace = (trace_auto if settings.trace.engine is Engine.auto else trace_prompts)(
        run.lm,
        prompts,
        run.labels,
        settings.trace,
        settings.prompt,
        seed=settings.seed,
        partial=folder / "partial.jsonl",
        progress=run.progress,
    )
    save_trace(trace, folder, key)
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


def _token_grids(run: Run, trace: Trace) -> tuple[TokenGrid, ...]:
    """The first kept examples token by token, as many as the settings ask for."""
    settings = run.settings.trace
    key, folder = run.key("tokens", settings), run.folder / "trace"
    if not settings.grids:
        return ()
    if found := load_token_grids(folder, key):
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
    save_token_grids(grids, folder, key)
    return grids


def _prompts_to_trace(run: Run) -> list[Prompt]:
    """The seeded draw of training examples that is looked at."""
    examples = run.splits.train.examples
    chosen = run.rng("trace examples").permutation(len(examples))[: run.settings.trace.examples]
    return run.encode(replace(run.splits.train, examples=tuple(examples[i] for i in sorted(chosen))))


def _summary(run: Run, trace: Trace) -> TraceSummary:
    """What `results.json` says of the trace; of an estimated one also how it agrees with the exact engine."""
    settings, draws = run.settings, run.settings.score.resamples
    summary = summarise(trace, draws=draws, rng=run.rng("effects"))
    if settings.trace.engine is Engine.exact:
        return summary
    checked = trace.first(settings.trace.checked)
    every = _prompts_to_trace(run)
    prompts = [p for p in every if p.example.id in set(checked.example_ids)]
    exactly = replace(settings.trace, engine=Engine.exact, dtype=Dtype.float32, filter=False)
    exact = trace_prompts(
        run.lm,
        prompts,
        run.labels,
        exactly,
        settings.prompt,
        seed=settings.seed,
        progress=run.progress,
        corrupter=Corrupter.of(run.lm, every, exactly, settings.prompt, settings.seed),
    )
    found = agreement(exact, checked, draws=1000, rng=run.rng("agreement"))
    log.info(
        "trace: %s against the exact engine on %d examples: rank correlation %s %%, %s %% of the %d strongest "
        "cells the same",
        settings.trace.engine.value, len(prompts), found.rank_correlation.percent(), found.overlap.percent(), found.top,
    )  # fmt: skip
    return replace(summary, agreement=found)


def _plans(run: Run, plan: EditPlan | None, trace: Trace | None) -> dict[str, EditPlan | None]:
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


def _export_method(run: Run) -> str | None:
    """The method to export, decided before anything is trained."""
    wanted, methods = run.settings.export.method, run.settings.method
    if Stage.methods not in run.settings.stages or wanted == "none":
        return None
    if wanted is None:
        trained = [name for name, method in methods.items() if not isinstance(method, ZeroShot)]
        return "edit" if "edit" in trained else trained[-1] if trained else None
    if wanted not in methods or isinstance(methods[wanted], ZeroShot):
        raise SettingsError(f"export.method={wanted}: expected one of the trained methods {', '.join(methods)}")
    if not run.settings.export.merged and not isinstance(methods[wanted], Edit | Lora):
        raise SettingsError(f"export.merged=false leaves nothing of {wanted} to export: it has no adapter")
    return wanted


def _export(run: Run, name: str, record: RunRecord, rows: Rows, tests: dict[str, list[Prompt]]) -> ExportRecord:
    """Write the adapter and the merged checkpoint of a method, load both plainly, and hold them to its predictions."""
    settings = run.settings
    method = settings.method[name]
    adapted = adapt(run.lm.model, method, record.methods[name].plan, seed=settings.seed)
    adapted.load_trained(load_file(run.folder / "methods" / name / "weights.safetensors"))
    edit = adapted.representation
    about = describe(adapted, settings.model, run.lm.sha256, settings.prompt)
    first = [row for one in rows.values() for row in one]

    def again(exported: Adapted) -> list[Prediction]:
        return [row for one in predict(run, "export", exported, tests).values() for row in one]

    export = run.folder / "export"
    shutil.rmtree(export, ignore_errors=True)  # of another method, maybe
    adapter = merged = None
    gaps = [0.0]
    try:
        if adapted.peft or edit:
            adapter = export / "adapter"
            write_adapter(adapted, adapter, about, adapter_card(record, name, about, deltas=adapted.peft is not None))
            gaps.append(check("adapter", plain_adapter(adapter, run.lm.model), first, again)[0])
        if settings.export.merged and edit is None:  # a representation edit folds into no weight
            merged = export / "merged"
            write_merged(adapted, run.lm.tokenizer, merged, about, merged_card(record, name, about))
            gaps.append(check("merged checkpoint", plain_merged(merged, adapted.model), first, again)[0])
    except ExportMismatch:
        shutil.rmtree(export)  # an export without its proof must not serve anyone
        raise
    paths = [str(p.relative_to(run.folder)) if p else None for p in (adapter, merged)]
    found = ExportRecord(name, paths[0], paths[1], max(gaps), 1.0, len(first))
    log.info("export: %s reloads with the same %d answers (largest gap %.1e)", name, found.n, found.max_logit_gap)
    with tracker_for(run, "export", job_type="export") as tracker:
        publish_export(tracker, f"{run.experiment}-{name}".replace("+", "-"), found, run.folder)
    return found


def _report(
    run: Run,
    record: RunRecord,
    trace: Trace | None,
    grids: Sequence[TokenGrid],
    rows: dict[str, Rows],
    command: str | None,
) -> None:
    draws = run.settings.score.resamples
    effects = average_effects(trace, draws=draws, rng=run.rng("effects")) if trace else None
    heads = average_head_effects(trace, draws=draws, rng=run.rng("effects")) if trace else None
    names = write_figures(record, effects, run.folder / "figures")
    for number, grid in enumerate(grids, 1):
        token_heatmap(grid, run.folder / "figures" / f"trace_tokens_{number}.png", model=record.model.name)
    for exported in (record.export.adapter, record.export.merged) if record.export else ():
        if exported:
            add_figures(run.folder / exported, [run.folder / "figures" / name for name in names])
    texts = {
        "report.md": report_markdown(record, figures=names, command=command),
        "report.html": report_html(
            record,
            effects=effects,
            heads=heads,
            trace=trace,
            train=run.splits.train,
            tests=run.splits.tests,
            predictions=rows,
            command=command,
        ),
    }
    for name, text in texts.items():
        with atomic(run.folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    if trace and effects:
        with tracker_for(run, "trace", job_type="trace") as tracker:
            publish_trace(tracker, effects, trace, run.folder / "figures" / "trace.png")
    if record.methods:
        with tracker_for(run, "compare", job_type="compare") as tracker:
            publish_comparison(tracker, record, [run.folder / "figures" / name for name in names])


def _pairs(methods: Sequence[str]) -> list[tuple[str, str]]:
    """The edit against every other method; without one, the first method against the others."""
    focus = "edit" if "edit" in methods else next(iter(methods), None)
    return [(focus, other) for other in methods if other != focus] if focus else []


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - began
