"""The trace of single examples, token by token: the picture of Meng et al. 2022 (arXiv 2202.05262), figure 1."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from absa_edit.config import TraceSettings
from absa_edit.data.prompts import Prompt
from absa_edit.lm.decoder import Decoder
from absa_edit.lm.load import LanguageModel
from absa_edit.progress import Progress, silent
from absa_edit.records import POLARITIES, Part, TokenGrid
from absa_edit.trace.budget import Budget
from absa_edit.trace.corrupt import Corrupter
from absa_edit.trace.exact import cells
from absa_edit.trace.runs import run_both
from absa_edit.trace.tracing import Answer, Labels, first_words, restore


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
    decoder, words = Decoder(lm.model), first_words(labels)
    parts = tuple(part for part in settings.parts if part is not Part.head)
    every = cells(parts, decoder.layers, settings.window)
    found, budget = [], Budget(settings.batch_tokens)
    for prompt in progress(prompts, "trace tokens", len(prompts), unit="example"):
        embeds = decoder.embed(torch.tensor([prompt.ids], device=decoder.device))
        corrupted = corrupter.corrupt(prompt, embeds)
        assert corrupted is not None  # an example without a twin is not traced
        runs = run_both(decoder, embeds, corrupted)
        answer = Answer(words, POLARITIES.index(prompt.example.polarity))
        clean, damaged = (
            answer.means(decoder.logits(state, words).float()) for state in (runs.clean_last, runs.leaving[:, -1])
        )
        units = [[position] for position in range(len(prompt.ids))]
        grids = restore(decoder, runs, units, every, answer, damaged, budget)
        tokens = tuple(str(lm.tokenizer.decode([token])).strip() for token in prompt.ids)
        probability = np.stack([grids[part][0] for part in parts])
        found.append(TokenGrid(prompt.example.id, tokens, prompt.roles, parts, clean[0], damaged[0], probability))
    return tuple(found)
