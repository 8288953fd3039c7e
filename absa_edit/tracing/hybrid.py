"""Estimate every cell, then run exactly the few that a plan can hang on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from absa_edit.data.prompts import Labels, Prompt
from absa_edit.data.settings import PromptSettings
from absa_edit.model.loading import LanguageModel
from absa_edit.model.settings import Dtype
from absa_edit.progress import Progress, silent
from absa_edit.records import Trace
from absa_edit.resampling import bootstrap_weights, weighted_means
from absa_edit.tracing.corruption import Corrupter
from absa_edit.tracing.effects import layer_profile
from absa_edit.tracing.restoration import Only
from absa_edit.tracing.settings import Engine, TraceSettings
from absa_edit.tracing.tracer import trace_prompts

DRAWS = 200
"""Resamples of the sentences."""
OFTEN = 0.2
"""Share of them that a role must be the strongest in to be run."""
SMALL = 0.3
"""Share of its part's largest effect below which a layer's stays estimated: to first order small effects are right."""


def trace_auto(
    lm: LanguageModel,
    prompts: Sequence[Prompt],
    labels: Labels,
    settings: TraceSettings,
    prompt_settings: PromptSettings,
    *,
    seed: int,
    partial: Path | None = None,
    progress: Progress = silent,
) -> Trace:
    """As `trace_prompts`: the estimated trace, with the cells that make up the layer profiles run exactly.

    `exact_cells` of the trace names them; heads stay estimates. `dtype` is that of the estimates: the cells
    that are run keep the model's own.
    """
    corrupter = Corrupter.of(lm, prompts, settings, prompt_settings, seed)
    of: dict[str, Any] = {"seed": seed, "progress": progress, "corrupter": corrupter}

    def traced(chosen: Sequence[Prompt], file: Path | None, only: Only | None = None, **changes: Any) -> Trace:
        changed_settings = replace(settings, **changes)
        return trace_prompts(lm, chosen, labels, changed_settings, prompt_settings, partial=file, only=only, **of)

    estimated = traced(prompts, partial, engine=Engine.attribution)
    deciding = deciding_cells(estimated, np.random.default_rng(seed))
    kept = [p for p in prompts if p.example.id in set(estimated.example_ids)]
    beside = partial and partial.with_name(f"exact_{partial.name}")
    run_exactly = {"engine": Engine.exact, "dtype": Dtype.float32, "filter": False, "parts": list(estimated.parts)}
    exact = traced(kept, beside, deciding, **run_exactly)
    # Estimates are of effects: they stand over the corrupted run of the cells that are run, whatever its rounding.
    shift, margin = exact.corrupted - estimated.corrupted, exact.corrupted_margin - estimated.corrupted_margin
    return replace(
        exact,
        engine=Engine.auto.value,
        counts=estimated.counts,
        dtype=estimated.dtype,
        seconds=estimated.seconds + exact.seconds,
        restored=np.where(deciding, exact.restored, _moved(estimated.restored, shift)),
        restored_margin=np.where(deciding, exact.restored_margin, _moved(estimated.restored_margin, margin)),
        restored_heads=_moved(estimated.restored_heads, shift),
        restored_heads_margin=_moved(estimated.restored_heads_margin, margin),
        exact_cells=tuple(
            (estimated.parts[part].value, estimated.roles[role].value, int(layer))
            for part, role, layer in np.argwhere(deciding)
        ),
    )


def _moved(grids: np.ndarray, by: Float[np.ndarray, " example"]) -> np.ndarray:
    """The grids of examples, each moved by one number; as they are where there are none."""
    return grids + by.reshape(-1, *(1,) * (grids.ndim - 1)) if grids.size else grids


def deciding_cells(estimated: Trace, rng: np.random.Generator) -> Bool[np.ndarray, "part role layer"]:
    """The roles that may be the strongest of a part in a layer: a plan looks at no others.

    Those that the estimate finds strongest in more than `OFTEN` of the resamples, in layers whose effect is not
    `SMALL`. By log-odds: in probability a first-order estimate levels large effects down, and near ties would send
    expensive cells to be run.
    """
    effects = estimated.restored_margin - estimated.corrupted_margin[:, None, None, None]
    resampled = weighted_means(bootstrap_weights(estimated.sentence_ids, DRAWS, rng), effects)
    strongest = layer_profile(resampled)[:, :, None]
    large = strongest >= SMALL * strongest.max(-1, keepdims=True)
    return np.asarray(((resampled == strongest) & (strongest > 0) & large).mean(0) > OFTEN)
