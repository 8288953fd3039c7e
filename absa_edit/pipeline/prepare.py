"""A run before its first stage: its settings made whole, data and model loaded and checked, its folder cleared."""

from __future__ import annotations

import logging
import os
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from absa_edit import __version__
from absa_edit.context import Context
from absa_edit.data.sources import load_splits
from absa_edit.errors import ModelError, RecordError, SettingsError
from absa_edit.model.loading import load_model
from absa_edit.model.precision import of_trace, of_training
from absa_edit.pipeline.run_folder import experiment_name, run_folder
from absa_edit.pipeline.stages.adapt import trace_key_found
from absa_edit.progress import Progress, silent
from absa_edit.results import RunRecord
from absa_edit.settings import Settings, Stage
from absa_edit.storage import load, load_trace
from absa_edit.tasks.base import task_of

log = logging.getLogger("absa_edit")


def prepare(
    settings: Settings,
    *,
    overrides: Sequence[str] = (),
    root: Path,
    progress: Progress = silent,
) -> Context:
    """Data and model loaded and checked against each other, and the folder that the run goes to.

    `root` is where `data/` is looked for; `overrides` are the command line's, and name the folder of a variant.
    """
    if settings.prompt.shots and settings.prompt.preamble:
        raise SettingsError(
            f"prompt.shots={settings.prompt.shots} and prompt.preamble are both given: shots are the preamble; drop one"
        )
    task = task_of(settings.task, settings.prompt)
    settings = replace(settings, prompt=task.prompt(settings.prompt))
    splits = load_splits(settings.data, task, root=root, environ=os.environ)
    lm = load_model(settings.model)
    fit = replace(settings.fit, precision=of_training(settings.fit.precision, lm.model))
    trace = replace(
        settings.trace,
        dtype=of_trace(settings.trace.dtype, lm.model, estimated=settings.trace.estimated),
    )
    settings = replace(settings, fit=fit, trace=trace)  # what results depend on is known from here on
    experiment = experiment_name(settings, splits.train.name, overrides)
    folder = run_folder(settings, experiment, lm.name)
    ctx = Context(settings, lm, task, splits, experiment, folder, progress)
    if settings.prompt.shots:
        ctx = replace(ctx, settings=replace(settings, prompt=ctx.prompt_with(settings.prompt.shots)))
    _check_first_words(ctx)
    ctx.answers_to_learn()  # what a tokenizer lacks is told before anything is trained
    return ctx


def _check_first_words(ctx: Context) -> None:
    """Tell of label words that begin with the same token. Raises `ModelError` where a trace, which reads it, is due."""
    first: dict[int, str] = {}
    for label, ids in ctx.labels.items():
        if (other := first.setdefault(ids[0], label)) != label:
            message = (
                f"the words of the labels {other} and {label} begin with the same token, all that a trace reads of "
                "them; choose other words (prompt.labels)"
            )
            if Stage.trace in ctx.settings.stages:
                raise ModelError(message)
            log.warning(message)


def make_way(ctx: Context) -> None:
    """Remove a `results.json` of other settings, which would stand beside this run's until that is done.

    Raises `SettingsError` when there is one of the same settings that tells more than this run's stages will.
    """
    path = ctx.folder / "results.json"
    if not path.exists():
        return
    try:
        kept = load(RunRecord, path)
    except RecordError:  # cut, or of another version
        return path.unlink()
    if kept.config_hash != ctx.config_hash():
        return path.unlink()
    trace_key = trace_key_found(ctx)
    lost_trace = kept.trace and not (trace_key and load_trace(ctx.folder / "trace", trace_key))
    kept_results = {
        Stage.trace: lost_trace,
        Stage.locate: kept.plan,
        Stage.methods: kept.methods,
        Stage.analyses: kept.analyses,
        Stage.export: kept.export,
    }
    lost = [stage.value for stage, result in kept_results.items() if result and stage not in ctx.settings.stages]
    if lost:
        raise SettingsError(
            f"stages: {path} already tells what came of {', '.join(lost)}: add them to stages, or give another "
            "output (what was done with these settings, data and version is found, not done again)"
        )


def versions() -> dict[str, str]:
    """Versions of the packages that results depend on."""
    names = ("torch", "transformers", "peft", "accelerate", "tokenizers", "numpy")
    return {"absa_edit": __version__, **{name: version(name) for name in names}}


def git_commit(clone: Path | None) -> str | None:
    """The commit of the clone that the package is run from, `-dirty` if it has changes; None outside one."""
    if clone is None:
        return None
    command = ["git", "-C", str(clone), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
