"""Causal tracing: corrupt the input, restore one hidden state at a time, see what brings the answer back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from absa_edit.data.prompts import Labels, Prompt
from absa_edit.data.settings import PromptSettings
from absa_edit.model.loading import LanguageModel
from absa_edit.progress import Progress, silent
from absa_edit.records import Trace
from absa_edit.tracing.hybrid import trace_auto
from absa_edit.tracing.settings import Engine, TraceSettings
from absa_edit.tracing.tracer import trace_prompts


def trace(
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
    """The trace by the engine that `settings` name, of those prompts that pass the paper's filter.

    Raises what `trace_prompts` does.
    """
    by = trace_auto if settings.engine is Engine.auto else trace_prompts
    return by(lm, prompts, labels, settings, prompt_settings, seed=seed, partial=partial, progress=progress)
