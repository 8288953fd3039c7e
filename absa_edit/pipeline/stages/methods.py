"""One method of a run: adapt, train, check that nothing else moved, score; or find all that done in its folder."""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import load_file, save_file

from absa_edit.context import Context
from absa_edit.data.prompts import Prompt
from absa_edit.evaluation.predict import BaseStates, log_probabilities, predictions
from absa_edit.evaluation.sampled import sampled_answers, sampled_score
from absa_edit.evaluation.scoring import development_scores, score
from absa_edit.localizers.base import Localizer, locate
from absa_edit.localizers.settings import LOCALIZERS
from absa_edit.methods.adapted_model import AdaptedModel, changed_elsewhere
from absa_edit.methods.base import adapt, check, method_of
from absa_edit.methods.settings import LocatedSettings, MethodSettings
from absa_edit.pipeline.shared_cache import shared_folder
from absa_edit.pipeline.stages.calibration import calibrated
from absa_edit.pipeline.stages.retention import retention, retention_key
from absa_edit.records import EditPlan
from absa_edit.resampling import label_numbers
from absa_edit.results import Fit, MethodRecord, Prediction, Sampled, Score
from absa_edit.storage import (
    ENGINE,
    atomic,
    content_hash,
    load_kept,
    load_predictions,
    readable,
    save_kept,
    save_predictions,
)
from absa_edit.tracking.log_records import publish_epoch, publish_method
from absa_edit.tracking.wandb import Tracker, track
from absa_edit.training.checkpoint import Checkpoint
from absa_edit.training.distributed import Job
from absa_edit.training.fitting import fit_method as fit_to_data

log = logging.getLogger("absa_edit")

R = TypeVar("R")
Rows = dict[str, tuple[Prediction, ...]]
"""Predictions by test set."""


def run_method(
    ctx: Context,
    name: str,
    method: MethodSettings,
    plan: EditPlan | None,
    tests: dict[str, list[Prompt]],
    base: BaseStates,
) -> tuple[MethodRecord, Rows]:
    """Train, check and score one method, or find it done in its folder."""
    settings = ctx.settings
    # one file holds the record: its key covers the tests, the training's does not
    training_key = fit_key(ctx, name, method, plan)
    key = retention_key(ctx, training_key)
    folder = ctx.folder / "methods" / name
    if kept := load_kept(MethodRecord, folder / "record.json", key):
        log.info("%s: found in %s", name, folder)
        with readable(folder / "record.json"):
            all_rows = load_predictions(folder / "predictions.jsonl")
        return kept, {test: tuple(r for r in all_rows if r.test == test) for test in tests}
    with tracker_for(ctx, name, job_type="fit") as tracker:
        forget_last_copy(ctx)
        adapted = adapt(ctx, method, plan)
        total = ctx.lm.model.num_parameters()
        log.info("%s: %d trainable parameters (%.3f %%)", name, adapted.count(), 100 * adapted.count() / total)
        fitted = None
        if method_of(method).trains:
            fitted = fit_method(ctx, name, adapted, folder, training_key, tracker, base)
        elsewhere = list(changed_elsewhere(adapted, ctx.lm.model))
        if elsewhere:
            raise RuntimeError(f"{name}: training changed {elsewhere[0]}, which is not in its plan")
        shared = None if method_of(method).prompt(ctx, method) else base  # states of other prompts
        for test, prompts in tests.items() if shared else ():  # what methods share is none's cost
            base.of(adapted, f"test/{test}", prompts)
        began = time.perf_counter()
        rows = predict(ctx, name, adapted, tests, shared)
        score_seconds = time.perf_counter() - began
        scores = {
            test: score(r, draws=settings.score.resamples, rng=ctx.rng(f"bootstrap {test}")) for test, r in rows.items()
        }
        after = retention(ctx, name, adapted, scores)
        record = MethodRecord(
            kind=adapted.kind,
            trainable=adapted.count(),
            share=adapted.count() / total,
            touched_share=adapted.touched / total,
            lr=adapted.lr.get("weights", adapted.lr.get("representation")),
            fit=fitted,
            score_seconds=score_seconds,
            perplexity=after.perplexity.value if after.perplexity else None,
            bytes_on_disk=sum(p.numel() * p.element_size() for p in adapted.trainable().values()),
            frozen_checked=True,
            plan=adapted.plan or plan,  # it may choose its own sites
            scores=scores,
            leak_free=_leak_free(ctx, rows),
            sampled=_sampled(ctx, name, adapted, tests) if settings.score.sampled and not adapted.head else {},
            retention=after,
            is_base=not method_of(method).trains and shared is not None and not adapted.content_free,
        )
        if settings.score.calibration:
            dev = ctx.encode(ctx.splits.dev, method_of(method).prompt(ctx, method))
            record = calibrated(ctx, name, adapted, record, dev, rows, shared)
        all_rows = tuple(row for test_rows in rows.values() for row in test_rows)
        (folder / "record.json").unlink(missing_ok=True)  # it is of other predictions
        save_predictions(all_rows, folder / "predictions.jsonl")
        save_kept(record, folder / "record.json", key)
        publish_method(tracker, name, record, all_rows)
    return record, rows


def prompts_of(ctx: Context, method: MethodSettings, tests: dict[str, list[Prompt]]) -> dict[str, list[Prompt]]:
    """`tests`, the run's prompts of each test set, or the method's own where it asks otherwise."""
    prompt = method_of(method).prompt(ctx, method)
    return {data.name: ctx.encode(data, prompt) for data in ctx.splits.tests} if prompt else tests


def _leak_free(ctx: Context, rows: Rows) -> dict[str, Score]:
    """Scores on the rows that are not in the training file, of the test sets that hold both kinds."""
    by_test = {}
    for data in ctx.splits.tests:
        if data.leaked and (clean := [row for row in rows[data.name] if row.id not in data.leaked]):
            rng = ctx.rng(f"bootstrap {data.name} leak-free")
            by_test[data.name] = score(clean, draws=ctx.settings.score.resamples, rng=rng)
    return by_test


def _sampled(ctx: Context, name: str, adapted: AdaptedModel, tests: dict[str, list[Prompt]]) -> dict[str, Sampled]:
    """How drawn answers score on each test set; the seed's draws are the same for every method."""
    words = dict(zip(ctx.task.labels, ctx.settings.prompt.labels, strict=True))
    by_test = {}
    for test, prompts in tests.items():
        rng = ctx.rng(f"sampled {test}")
        answers = sampled_answers(
            adapted,
            prompts,
            ctx.lm.tokenizer,
            seed=int(rng.integers(2**63)),
            progress=ctx.progress,
            name=f"{name} writes on {test}",
        )
        by_test[test] = sampled_score(prompts, answers, words, draws=ctx.settings.score.resamples, rng=rng)
    return by_test


def fit_key(ctx: Context, name: str, method: MethodSettings, plan: EditPlan | None) -> str:
    return ctx.key("fit", name, type(method).__name__, method, plan, ctx.settings.fit)


def forget_last_copy(ctx: Context) -> None:
    """Of the model, with what it left on the GPU."""
    gc.collect()
    if ctx.lm.model.device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(ctx.lm.model.device)


def own_plan(ctx: Context, name: str, method: MethodSettings, plan: EditPlan | None) -> EditPlan | None:
    """The plan of a method: the run's, or that of its own localizer; None for one without a plan.

    Raises what keeps the method from training the model, or what its plan names.
    """
    kind = method_of(method)
    if not kind.located(method):
        plan = None
    elif plan is not None and isinstance(method, LocatedSettings) and method.locate is not None:
        rng = ctx.rng(f"locate {name}")
        localizer: Localizer = LOCALIZERS[method.locate]()
        if localizer.follows:
            plan = localizer.like(ctx, plan, rng, layers_together=kind.layers_together(method))
        else:
            plan = locate(ctx, ctx.settings.locate.by(method.locate), rng)
    check(ctx.lm.runner, method, plan)
    return plan


def fit_method(
    ctx: Context, name: str, adapted: AdaptedModel, folder: Path, key: str, tracker: Tracker, base: BaseStates
) -> Fit:
    settings, method = ctx.settings, ctx.settings.method[name]
    if kept := load_kept(Fit, folder / "fit.json", key):
        log.info("%s: training found in %s", name, folder)
        with readable(folder / "fit.json"):
            adapted.load_trained(load_file(folder / "weights.safetensors"))
        return kept
    dev = ctx.encode(ctx.splits.dev)
    gold = label_numbers([p.example.label for p in dev], ctx.task.labels)
    frozen = base.of(adapted, "dev", dev)

    def evaluate() -> dict[str, float]:
        scores = log_probabilities(
            adapted,
            dev,
            ctx.labels,
            batch_tokens=settings.score.batch_tokens,
            frozen=frozen,
            progress=ctx.progress,
            name=f"{name} on development data",
        )
        return development_scores(scores, gold)

    def on_epoch(row: dict[str, float]) -> None:
        publish_epoch(tracker, row)
        log.info(
            "%s: epoch %d, loss %.3f, development macro-F1 %.1f, log-loss %.3f, %.0f s",
            name, row["epoch"], row["loss"], 100 * row["dev_macro_f1"], row["dev_log_loss"], row["seconds"],
        )  # fmt: skip

    log.info("%s: training with matrix products in %s", name, settings.fit.precision)
    job = Job(name, adapted.plan, fit_key(ctx, name, method, adapted.plan))
    checkpoint = Checkpoint(folder / "checkpoint", job.key)
    fitted = fit_to_data(
        ctx,
        method,
        adapted,
        evaluate,
        job=job,
        checkpoint=checkpoint,
        on_epoch=on_epoch,
        name=name,
    )
    if fitted.scale is not None:
        log.info("%s: %g times what training changed has the least development loss", name, fitted.scale)
    for of_other_weights in ("fit.json", "record.json"):  # of a run with other settings, maybe
        (folder / of_other_weights).unlink(missing_ok=True)
    with atomic(folder / "weights.safetensors") as temporary:
        save_file({n: t.detach().cpu().contiguous() for n, t in adapted.trainable().items()}, temporary)
    save_kept(fitted, folder / "fit.json", key)
    checkpoint.remove()
    return fitted


def base_states(ctx: Context, plans: Iterable[EditPlan | None]) -> BaseStates:
    """States of the base model for methods with these plans to share when they are scored."""
    settings = ctx.settings
    starts = [min(plan.layers()) for plan in plans if plan]
    model = content_hash(ENGINE, ctx.lm.sha256, ctx.lm.files_sha256, str(ctx.lm.model.dtype), ctx.lm.model.device.type)
    return BaseStates(
        ctx.labels,
        ctx.lm.model.dtype,
        starts,
        settings.score.batch_tokens,
        settings.fit.cache_gib,
        ctx.progress,
        lambda prompts: shared_folder(ctx, "states", content_hash(model, prompts)),
    )


def predict(
    ctx: Context, name: str, adapted: AdaptedModel, tests: dict[str, list[Prompt]], base: BaseStates | None = None
) -> Rows:
    """The predictions of `adapted` on each test set; `base` where it is the run's own model that was adapted."""
    rows: Rows = {}
    for test, prompts in tests.items():
        scores = log_probabilities(
            adapted,
            prompts,
            ctx.labels,
            batch_tokens=ctx.settings.score.batch_tokens,
            frozen=base.of(adapted, f"test/{test}", prompts) if base else None,
            progress=ctx.progress,
            name=f"{name} on {test}",
        )
        rows[test] = predictions(name, test, prompts, ctx.task.labels, scores)
    return rows


def tracker_for(ctx: Context, name: str, job_type: str) -> Any:
    """A tracker run with every setting; those that differ only by the seed share a group."""
    group = f"{ctx.experiment}/{ctx.lm.name}/{name}"
    seed = ctx.settings.seed
    config = asdict(ctx.settings)
    config["methods"] = config["method"]
    config |= {"experiment": ctx.experiment, "config_hash": ctx.config_hash(), "method": name, "group": group}
    tags = [ctx.splits.train.name, ctx.lm.name, name]
    return track(
        ctx.settings.track,
        group=group,
        name=f"{name}-seed{seed}",
        job_type=job_type,
        config=config,
        tags=tags,
        folder=ctx.folder,
    )
