"""The trace of single examples, token by token: the picture of Meng et al. 2022 (arXiv 2202.05262), figure 1."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from absa_edit.data.prompts import Labels, Prompt
from absa_edit.model.block_runner import BlockRunner
from absa_edit.model.loading import LanguageModel
from absa_edit.progress import Progress, silent
from absa_edit.records import Part, TokenGrid
from absa_edit.tracing.clean_and_corrupted import clean_and_corrupted
from absa_edit.tracing.corruption import Corrupter
from absa_edit.tracing.exact_patching import cells
from absa_edit.tracing.memory_budget import MemoryBudget
from absa_edit.tracing.restoration import Answer, first_words, restore
from absa_edit.tracing.settings import TraceSettings


@torch.inference_mode()
def token_grids(
    lm: LanguageModel,
    prompts: Sequence[Prompt],
    labels: Labels,
    settings: TraceSettings,
    corrupter: Corrupter,
    *,
    progress: Progress = silent,
) -> tuple[TokenGrid, ...]:
    """What each token's restoration brings back, in each layer: always run, never estimated."""
    runner, words = BlockRunner(lm.model), first_words(labels)
    parts = tuple(part for part in settings.parts if part is not Part.head)
    all_cells = cells(parts, runner.layers, settings.window)
    traced_examples, budget = [], MemoryBudget(settings.batch_tokens)
    for prompt in progress(prompts, "trace tokens", len(prompts), unit="example"):
        embeds = runner.embed(torch.tensor([prompt.ids], device=runner.device))
        corrupted = corrupter.corrupt(prompt, embeds)
        assert corrupted is not None  # an example without a twin is not traced
        runs = clean_and_corrupted(runner, embeds, corrupted)
        answer = Answer(words, list(labels).index(prompt.example.label))
        clean, damaged = (
            answer.means(runner.logits(state, words).float()) for state in (runs.clean_last, runs.leaving[:, -1])
        )
        units = [[position] for position in range(len(prompt.ids))]
        grids = restore(runner, runs, units, all_cells, answer, damaged, budget)
        tokens = tuple(str(lm.tokenizer.decode([token])).strip() for token in prompt.ids)
        probability = np.stack([grids[part][0] for part in parts])
        traced_examples.append(
            TokenGrid(prompt.example.id, tokens, prompt.roles, parts, clean[0], damaged[0], probability)
        )
    return tuple(traced_examples)
