"""What processes beside the first one do: train with it what it trains."""

from __future__ import annotations

from absa_edit.context import Context
from absa_edit.errors import FitError
from absa_edit.methods.base import adapt
from absa_edit.pipeline.stages.adapt import ADAPTED, adaptation_context
from absa_edit.pipeline.stages.methods import fit_key, forget_last_copy
from absa_edit.training.checkpoint import Checkpoint
from absa_edit.training.distributed import Job, next_job
from absa_edit.training.loop import fit


def help_train(ctx: Context) -> None:
    """In a process beside the first one: train with it what it trains, until it is done.

    Raises `FitError` when this process has other data, another model or other settings.
    """
    while job := next_job(ctx.lm.model.device):
        _help(adaptation_context(ctx) if job.name == ADAPTED else ctx, job)


def _help(ctx: Context, job: Job) -> None:
    method, seed = ctx.settings.method[job.name], ctx.settings.seed
    if fit_key(ctx, job.name, method, job.plan) != job.key:
        raise FitError(
            f"{job.name}: this process would not train what the first one does; give all the same data, model and "
            "settings (of machines that differ, fit.precision too)"
        )
    forget_last_copy(ctx)
    adapted = adapt(ctx, method, job.plan)
    train = ctx.encode(ctx.splits.train)
    checkpoint = Checkpoint(ctx.folder / "methods" / job.name / "checkpoint", job.key)
    answers = ctx.answers_to_learn()
    fit(adapted, train, answers, ctx.settings.fit, dict, seed=seed, checkpoint=checkpoint)  # the first evaluates
