"""Adapt, then trace: a model that knows nothing of the task decides it nowhere, so a short fit comes first."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from absa_edit.context import Context
from absa_edit.data.splits import limit
from absa_edit.errors import CannotMerge, SettingsError
from absa_edit.evaluation.scoring import score
from absa_edit.export.folder import merged
from absa_edit.methods.adapted_model import AdaptedModel
from absa_edit.methods.base import adapt
from absa_edit.methods.settings import METHODS, MethodSettings
from absa_edit.pipeline.shared_cache import fetch, share
from absa_edit.pipeline.stages.methods import base_states, fit_key, fit_method, forget_last_copy, predict, tracker_for
from absa_edit.results import Adaptation, Fit, Interval
from absa_edit.storage import content_hash, load_kept, save_kept
from absa_edit.tracing.settings import TracedModel

log = logging.getLogger("absa_edit")

ADAPTED = "adapted"
"""The name of the fit that comes before a trace."""
FIT_FILES = ("weights.safetensors", "fit.json")


def traced_context(ctx: Context) -> tuple[Context, Adaptation]:
    """The context whose model is traced, adapted first where the settings or the base's answers ask for it.

    Raises `SettingsError` for a method of `trace.adapt` that trains nothing, needs a plan or cannot be merged.
    """
    choice = ctx.settings.trace.model
    base = known = None
    if choice is TracedModel.auto:
        base, known = base_on_dev(ctx), 1 / len(ctx.task.labels)
        log.info(
            "trace: %s: its macro-F1 is %s on %d development examples, and label frequencies alone give %.1f",
            "the model is adapted first" if _needs_adapting(ctx, base) else "the base model",
            base.percent(), base.n, 100 * known,
        )  # fmt: skip
    if choice is TracedModel.base or (base is not None and not _needs_adapting(ctx, base)):
        return ctx, Adaptation(False, choice.value, base, known, None, 0, None)
    training = adaptation_context(ctx)
    adapted, fit = _fitted(training)
    try:
        model = merged(adapted)
    except CannotMerge as error:
        raise SettingsError(f"trace.adapt.method={ctx.settings.trace.adapt.method}: {error}; take lora") from error
    lm = replace(ctx.lm, model=model, sha256=_adapted_hash(training))
    examples, method = len(training.splits.train), ctx.settings.trace.adapt.method
    return replace(ctx, lm=lm), Adaptation(True, choice.value, base, known, method, examples, fit)


def trace_key_found(ctx: Context) -> str | None:
    """The key of the trace that this run makes or would find; None where that takes a look at the base's answers."""
    choice = ctx.settings.trace.model
    if choice is TracedModel.auto:
        base = load_kept(Interval, *_base_record(ctx))
        if base is None:
            return None
        choice = TracedModel.adapted if _needs_adapting(ctx, base) else TracedModel.base
    if choice is TracedModel.base:
        return ctx.trace_key()
    return replace(ctx, lm=replace(ctx.lm, sha256=_adapted_hash(adaptation_context(ctx)))).trace_key()


def adaptation_context(ctx: Context) -> Context:
    """What the fit before the trace is made of: its one method, its examples, its epochs; it has no test data."""
    settings = ctx.settings
    wanted = settings.trace.adapt
    train = limit(ctx.splits.train, wanted.examples, ctx.rng("adapt"))
    return replace(
        ctx,
        settings=replace(
            settings,
            method={ADAPTED: _method(ctx)},
            compare=[],
            fit=replace(settings.fit, epochs=wanted.epochs),
        ),
        splits=replace(ctx.splits, train=train, tests=()),
        folder=ctx.folder / "trace",
    )


def base_on_dev(ctx: Context) -> Interval:
    """Macro-F1 of the base model on development data, kept beside the trace."""
    path, key = _base_record(ctx)
    if kept := load_kept(Interval, path, key):
        return kept
    base = AdaptedModel("base", ctx.lm.model, start=ctx.lm.runner.layers)
    rows = predict(ctx, "base", base, {"dev": ctx.encode(ctx.splits.dev)})
    interval = score(rows["dev"], draws=ctx.settings.score.resamples, rng=ctx.rng("base on dev")).macro_f1
    save_kept(interval, path, key)
    return interval


def _base_record(ctx: Context) -> tuple[Path, str]:
    return ctx.folder / "trace" / "base_on_dev.json", ctx.key("base on dev", ctx.settings.score.resamples)


def _needs_adapting(ctx: Context, base: Interval) -> bool:
    """Whether the base's macro-F1 is not surely above that of the best guess from label frequencies.

    Who gives label c with probability q_c, whatever the text, has the F1 2 f_c q_c / (f_c + q_c) where its frequency
    is f_c; the mean over L labels is largest for q = f, and 1 / L.
    """
    return base.low <= 1 / len(ctx.task.labels)


def _method(ctx: Context) -> MethodSettings:
    wanted = ctx.settings.trace.adapt
    if wanted.method is None:
        raise SettingsError("trace.adapt.method: name the method that adapts the model before its trace, e.g. lora")
    kind = METHODS[wanted.method]
    if not kind.trains or kind.needs_plan:
        why = "trains nothing" if not kind.trains else "needs a plan, which comes after the trace"
        raise SettingsError(f"trace.adapt.method={wanted.method}: it {why}; take lora, another adapter, or full")
    settings: MethodSettings = kind.settings()
    return settings if wanted.lr is None else replace(settings, lr=wanted.lr)


def _key(training: Context) -> str:
    return fit_key(training, ADAPTED, training.settings.method[ADAPTED], None)


def _adapted_hash(training: Context) -> str:
    """What stands for the hash of the adapted model's weights: they are made of what this is the hash of."""
    return content_hash("adapted", _key(training))


def _fitted(training: Context) -> tuple[AdaptedModel, Fit]:
    """The adapted model, trained, or with what this run or another one trained so before."""
    key, folder = _key(training), training.folder / "methods" / ADAPTED
    fetch(training, "fit", key, folder, FIT_FILES)
    forget_last_copy(training)
    with tracker_for(training, ADAPTED, job_type="fit") as tracker:
        adapted = adapt(training, training.settings.method[ADAPTED], None)
        fit = fit_method(training, ADAPTED, adapted, folder, key, tracker, base_states(training, []))
    share(training, "fit", key, folder, FIT_FILES)
    return adapted, fit
