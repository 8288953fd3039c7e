"""The stages in order. Each result stays in the run folder under a hash of what it depends on, to be found again."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter
from rich.console import Console
from safetensors.torch import load_file, save_file

from absa_edit.adapt import Adapted, adapt, changed_elsewhere
from absa_edit.config import Delta, Edit, Localiser, Method, Stage, ZeroShot
from absa_edit.data.prompts import Prompt
from absa_edit.errors import RecordError, SettingsError
from absa_edit.evaluate.perplexity import neutral_text, perplexity
from absa_edit.evaluate.predict import log_probabilities, predictions
from absa_edit.evaluate.score import compare, score
from absa_edit.export.card import model_card
from absa_edit.export.folder import write_adapter, write_merged
from absa_edit.export.parity import check, plain_adapter, plain_merged
from absa_edit.fit.checkpoint import Checkpoint
from absa_edit.fit.loop import fit
from absa_edit.locate import by_chance, locate
from absa_edit.records import SCHEMA, EditPlan, ExportRecord, Fit, MethodRecord, Prediction, RunRecord, Trace
from absa_edit.report.figures import write_figures
from absa_edit.report.markdown import report_markdown
from absa_edit.report.publish import (
    publish_comparison,
    publish_epoch,
    publish_export,
    publish_method,
    publish_trace,
)
from absa_edit.report.terminal import print_results
from absa_edit.report.track import Tracker, track
from absa_edit.run import Run, git_commit, versions
from absa_edit.statistics import accuracy, confusions, label_numbers, macro_f1
from absa_edit.storage import (
    atomic,
    load,
    load_predictions,
    load_trace,
    save_predictions,
    save_trace,
    to_json,
    write_json,
)
from absa_edit.trace.effects import average_effects, summarise
from absa_edit.trace.exact import trace_exact

log = logging.getLogger("absa_edit")

R = TypeVar("R")
Rows = dict[str, tuple[Prediction, ...]]
"""Predictions by test set."""


def execute(run: Run, *, console: Console, command: str | None = None, root: Path) -> RunRecord:
    """Run the stages that the settings name and fill the run folder; its `results.json` as a record."""
    settings = run.settings
    for notice in run.splits.notices:
        log.warning(notice)
    exported = _export_method(run) if Stage.export in settings.stages else None
    seconds: dict[str, float] = {}
    trace = plan = None
    if Stage.trace in settings.stages:
        with _timed(seconds, "trace"):
            trace = _trace(run)
    if Stage.locate in settings.stages:
        with _timed(seconds, "locate"):
            plan = locate(settings.locate, run.lm.model, trace, draws=200, rng=run.rng("locate"))
            write_json(plan, run.folder / "plan.json")
    records: dict[str, MethodRecord] = {}
    rows: dict[str, Rows] = {}
    if Stage.methods in settings.stages:
        tests = {data.name: run.encode(data) for data in run.splits.tests}
        for name, method in settings.method.items():
            with _timed(seconds, name):
                records[name], rows[name] = _method(run, name, method, plan, tests)
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
        trace=summarise(trace, draws=draws, rng=run.rng("effects")) if trace else None,
        plan=plan,
        methods=records,
        comparisons=compare(_pairs(list(records)), rows, draws=draws, rng=run.rng("compare")),
        export=None,
        seconds=seconds,
        versions=versions(),
        git=git_commit(root),
        config_hash=run.config_hash(),
    )
    if exported:
        with _timed(seconds, "export"):
            record = replace(record, export=_export(run, exported, record, plan, rows[exported], tests))
    write_json(record, run.folder / "results.json")
    load(RunRecord, run.folder / "results.json")  # what is written must be readable as what it claims to be
    if Stage.report in settings.stages:
        _report(run, record, trace, command)
    if records:
        print_results(record, console)
    return record


def _trace(run: Run) -> Trace:
    settings = run.settings
    key = run.key("trace", settings.trace)
    folder = run.folder / "trace"
    if found := load_trace(folder, key):
        log.info("trace: found in %s", folder)
        return found
    examples = run.splits.train.examples
    chosen = run.rng("trace examples").permutation(len(examples))[: settings.trace.examples]
    prompts = run.encode(replace(run.splits.train, examples=tuple(examples[i] for i in sorted(chosen))))
    trace = trace_exact(
        run.lm,
        prompts,
        run.labels,
        settings.trace,
        settings.prompt,
        rng=run.torch_rng("trace noise"),
        progress=run.progress,
    )
    save_trace(trace, folder, key)
    c = trace.counts
    log.info(
        "trace: %d examples, %d kept (clean run wrong %d, corrupted run right %d), %.0f s",
        c.seen, c.kept, c.clean_wrong, c.corrupted_right, trace.seconds,
    )  # fmt: skip
    return trace


def _method(
    run: Run, name: str, method: Method, plan: EditPlan | None, tests: dict[str, list[Prompt]]
) -> tuple[MethodRecord, Rows]:
    """Train, check and score one method, or find it done in its folder."""
    settings = run.settings
    own = _own_plan(run, name, method, plan)
    # one file holds the record: its key covers the tests, the training's does not
    fit_key = run.key("fit", name, type(method).__name__, method, own, settings.fit)
    key = run.key(fit_key, settings.score, *(data.summary() for data in run.splits.tests))
    folder = run.folder / "methods" / name
    if found := _kept(MethodRecord, folder / "record.json", key):
        log.info("%s: found in %s", name, folder)
        every = load_predictions(folder / "predictions.jsonl")
        return found, {test: tuple(r for r in every if r.test == test) for test in tests}
    with _tracker(run, name, job_type="fit") as tracker:
        adapted = adapt(run.lm.model, method, own, seed=settings.seed)
        total = run.lm.model.num_parameters()
        log.info("%s: %d trainable parameters (%.3f %%)", name, adapted.count(), 100 * adapted.count() / total)
        fitted = None
        if not isinstance(method, ZeroShot):
            fitted = _fit(run, name, adapted, folder, fit_key, tracker)
        elsewhere = list(changed_elsewhere(adapted, run.lm.model))
        if elsewhere:
            raise RuntimeError(f"{name}: training changed {elsewhere[0]}, which is not in its plan")
        began = time.perf_counter()
        rows = _predict(run, name, adapted, tests)
        score_seconds = time.perf_counter() - began
        record = MethodRecord(
            kind=adapted.kind,
            trainable=adapted.count(),
            share=adapted.count() / total,
            touched_share=adapted.touched / total,
            lr=adapted.lr.get("weights"),
            fit=fitted,
            score_seconds=score_seconds,
            perplexity=perplexity(adapted, run.lm.tokenizer, neutral_text()),
            bytes_on_disk=sum(p.numel() * p.element_size() for p in adapted.trainable().values()),
            frozen_checked=True,
            plan=own,
            scores={
                test: score(r, draws=settings.score.resamples, rng=run.rng(f"bootstrap {test}"))
                for test, r in rows.items()
            },
        )
        every = tuple(row for one in rows.values() for row in one)
        save_predictions(every, folder / "predictions.jsonl")
        write_json({"key": key, "record": to_json(record)}, folder / "record.json")
        publish_method(tracker, name, record, every)
    return record, rows


def _own_plan(run: Run, name: str, method: Method, plan: EditPlan | None) -> EditPlan | None:
    """The plan of a method: the run's, or that of a localiser of its own."""
    if not isinstance(method, Edit | Delta):
        return None
    if plan is None or method.locate is None:
        return plan
    if method.locate is Localiser.random:
        return by_chance(plan, run.lm.model, rng=run.rng(f"locate {name}"))
    settings = replace(run.settings.locate, kind=method.locate, layers=[], plan=None)
    return locate(settings, run.lm.model, None, draws=200, rng=run.rng(f"locate {name}"))


def _fit(run: Run, name: str, adapted: Adapted, folder: Path, key: str, tracker: Tracker) -> Fit:
    settings = run.settings
    if found := _kept(Fit, folder / "fit.json", key):
        log.info("%s: training found in %s", name, folder)
        adapted.load_trained(load_file(folder / "weights.safetensors"))
        return found
    train, dev = run.encode(run.splits.train), run.encode(run.splits.dev)
    gold = label_numbers([p.example.polarity for p in dev])

    def evaluate() -> dict[str, float]:
        scores = log_probabilities(adapted, dev, run.labels, batch_tokens=settings.score.batch_tokens)
        table = confusions(gold, scores.argmax(1)).sum(0)
        return {"dev_accuracy": float(accuracy(table)), "dev_macro_f1": float(macro_f1(table))}

    def on_epoch(row: dict[str, float]) -> None:
        publish_epoch(tracker, row)
        log.info(
            "%s: epoch %d, loss %.3f, development macro-F1 %.1f, %.0f s",
            name, row["epoch"], row["loss"], 100 * row["dev_macro_f1"], row["seconds"],
        )  # fmt: skip

    fitted = fit(
        adapted,
        train,
        run.labels,
        settings.fit,
        evaluate,
        seed=settings.seed,
        checkpoint=Checkpoint(folder / "checkpoint", key),
        on_epoch=on_epoch,
        progress=run.progress,
        name=name,
    )
    with atomic(folder / "weights.safetensors") as temporary:
        save_file({n: t.detach().cpu().contiguous() for n, t in adapted.trainable().items()}, temporary)
    write_json({"key": key, "record": to_json(fitted)}, folder / "fit.json")
    shutil.rmtree(folder / "checkpoint", ignore_errors=True)
    return fitted


def _predict(run: Run, name: str, adapted: Adapted, tests: dict[str, list[Prompt]]) -> Rows:
    rows: Rows = {}
    for test, prompts in tests.items():
        scores = log_probabilities(
            adapted,
            prompts,
            run.labels,
            batch_tokens=run.settings.score.batch_tokens,
            progress=run.progress,
            name=f"{name} on {test}",
        )
        rows[test] = predictions(name, test, prompts, scores)
    return rows


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
    return wanted


def _export(
    run: Run, name: str, record: RunRecord, plan: EditPlan | None, rows: Rows, tests: dict[str, list[Prompt]]
) -> ExportRecord:
    """Write the adapter and the merged checkpoint of a method, load both plainly, and hold them to its predictions."""
    settings = run.settings
    method = settings.method[name]
    adapted = adapt(run.lm.model, method, record.methods[name].plan, seed=settings.seed)
    adapted.load_trained(load_file(run.folder / "methods" / name / "weights.safetensors"))
    edit = adapted.representation
    card = model_card(record, name, base=settings.model.name, representation=edit is not None)
    first = [row for one in rows.values() for row in one]

    def again(exported: Adapted) -> list[Prediction]:
        return [row for one in _predict(run, "export", exported, tests).values() for row in one]

    export = run.folder / "export"
    adapter = merged = None
    gaps = [0.0]
    about = {"base": settings.model.name, "prompt": settings.prompt, "card": card}
    if adapted.peft:
        adapter = export / "adapter"
        write_adapter(adapted, adapter, **about)  # type: ignore[arg-type]
        plain = replace(plain_adapter(adapter, run.lm.model), representation=edit)
        gaps.append(check("adapter", plain, first, again)[0])
    if settings.export.merged and edit is None:  # a representation edit folds into no weight
        merged = export / "merged"
        write_merged(adapted, run.lm.tokenizer, merged, **about)  # type: ignore[arg-type]
        gaps.append(check("merged checkpoint", plain_merged(merged, run.lm.model), first, again)[0])
    paths = [str(p.relative_to(run.folder)) if p else None for p in (adapter, merged)]
    found = ExportRecord(name, paths[0], paths[1], max(gaps), 1.0, len(first))
    log.info("export: %s reloads with the same %d answers (largest gap %.1e)", name, found.n, found.max_logit_gap)
    with _tracker(run, "export", job_type="export") as tracker:
        publish_export(tracker, f"{run.experiment}-{name}".replace("+", "-"), found, run.folder)
    return found


def _report(run: Run, record: RunRecord, trace: Trace | None, command: str | None) -> None:
    draws = run.settings.score.resamples
    effects = average_effects(trace, draws=draws, rng=run.rng("effects")) if trace else None
    names = write_figures(record, effects, run.folder / "figures")
    with atomic(run.folder / "report.md") as temporary:
        temporary.write_text(report_markdown(record, figures=names, command=command), encoding="utf-8")
    if trace and effects:
        with _tracker(run, "trace", job_type="trace") as tracker:
            publish_trace(tracker, effects, trace, run.folder / "figures" / "trace.png")
    if record.methods:
        with _tracker(run, "compare", job_type="compare") as tracker:
            publish_comparison(tracker, record, [run.folder / "figures" / name for name in names])


def _pairs(methods: Sequence[str]) -> list[tuple[str, str]]:
    """The edit against every other method; without one, the first method against the others."""
    focus = "edit" if "edit" in methods else next(iter(methods), None)
    return [(focus, other) for other in methods if other != focus] if focus else []


def _kept(kind: type[R], path: Path, key: str) -> R | None:
    """The record of type `kind` at `path` if it was made under the same key."""
    if not path.exists():
        return None
    kept = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(kept, dict) or kept.get("key") != key:
        return None
    try:
        return TypeAdapter(kind).validate_python(kept["record"])
    except ValueError as error:
        raise RecordError(f"{path}: not a {kind.__name__} ({str(error).splitlines()[0]}); delete the folder") from None


def _tracker(run: Run, name: str, job_type: str) -> Any:
    """A tracker run; those that differ only by the seed share a group."""
    group = f"{run.experiment}/{run.lm.name}"
    seed = run.settings.seed
    config = {"experiment": run.experiment, "seed": seed, "config_hash": run.config_hash(), "method": name}
    tags = [run.splits.train.name, run.lm.name, name]
    return track(
        run.settings.track,
        group=group,
        name=f"{name}-seed{seed}",
        job_type=job_type,
        config=config,
        tags=tags,
        folder=run.folder,
    )


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - began
