"""The fit of any method: by the common loop or by its own rounds, and how far to go along what it changed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from absa_edit.context import Context
from absa_edit.methods.adapted_model import AdaptedModel
from absa_edit.methods.base import method_of
from absa_edit.methods.settings import MethodSettings
from absa_edit.results import Fit
from absa_edit.training.checkpoint import Checkpoint
from absa_edit.training.distributed import Job, announce
from absa_edit.training.loop import Row, copied, fit
from absa_edit.training.rounds import fit_by_rounds
from absa_edit.training.scale import choose_scale


def fit_method(
    ctx: Context,
    method: MethodSettings,
    adapted: AdaptedModel,
    evaluate: Callable[[], Row],
    *,
    job: Job | None = None,
    checkpoint: Checkpoint | None = None,
    on_epoch: Callable[[Row], None] = lambda row: None,
    name: str = "fit",
) -> Fit:
    """How the fit of `adapted` to the training data went; `evaluate` gives `evaluation.scoring.development_scores`.

    `job` tells other processes to train with this one.
    """
    kind = method_of(method)
    linear = kind.linear_in(method) if method.scale else None
    scaled = {n: p for n, p in adapted.trainable().items() if linear is not None and linear in n}
    untrained = copied(scaled)
    if (rounds := kind.rounds(ctx, adapted, method)) is not None:
        fitted = fit_by_rounds(adapted, rounds, evaluate, examples=len(ctx.splits.train), on_epoch=on_epoch)
    else:
        if job:
            announce(job, adapted.model.device)
        fitted = fit(
            adapted,
            ctx.encode(ctx.splits.train),
            ctx.answers_to_learn(),
            ctx.settings.fit,
            evaluate,
            seed=ctx.settings.seed,
            checkpoint=checkpoint,
            on_epoch=on_epoch,
            progress=ctx.progress,
            name=name,
        )
    if not scaled:
        return fitted
    began = time.perf_counter()
    scale, scores = choose_scale(scaled, untrained, evaluate)
    seconds = fitted.seconds + time.perf_counter() - began
    return replace(fitted, seconds=seconds, best_macro_f1=scores["dev_macro_f1"], scale=scale)
