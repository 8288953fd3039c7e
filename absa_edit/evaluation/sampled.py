"""Answers that are drawn, as the official code of arXiv 2503.15117 decodes: noisier than comparing the label words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from absa_edit.data.prompts import Prompt
from absa_edit.methods.adapted_model import AdaptedModel
from absa_edit.progress import Progress, silent
from absa_edit.resampling import bootstrap_weights, percentile_interval, weighted_means
from absa_edit.results import Sampled

NEW_TOKENS = 10
"""Most that are drawn. Source: the official code, `generate(max_new_tokens=10, do_sample=True)`."""


@torch.no_grad()
def sampled_answers(
    adapted: AdaptedModel,
    prompts: Sequence[Prompt],
    tokenizer: PreTrainedTokenizerBase,
    *,
    seed: int,
    progress: Progress = silent,
    name: str = "sampled",
) -> list[str]:
    """What the model writes after each prompt, stripped; temperature and cut-offs are those of its generation config.

    One prompt at a time, as there: a representation edit acts at another place of each.
    """
    model = cast(Any, adapted.peft if adapted.prefix else adapted.model)
    device = adapted.model.device
    end = tokenizer.eos_token_id
    answers = []
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        for prompt in progress(prompts, name, len(prompts)):
            ids = torch.tensor([prompt.ids], device=device)
            options = {"max_new_tokens": NEW_TOKENS, "do_sample": True, "eos_token_id": end, "pad_token_id": end}
            with adapted.on(prompt):
                written = model.generate(ids, attention_mask=torch.ones_like(ids), **options)[0, len(prompt.ids) :]
            answers.append(str(tokenizer.decode(written, skip_special_tokens=True)).strip())
    return answers


def sampled_score(
    prompts: Sequence[Prompt],
    answers: Sequence[str],
    words: Mapping[str, str],
    *,
    draws: int,
    rng: np.random.Generator,
) -> Sampled:
    """Accuracy with its interval, and how many answers are no label's word; `words` are those of the labels."""
    right = np.array([words[p.example.label] == a for p, a in zip(prompts, answers, strict=True)], dtype=np.float64)
    weights = bootstrap_weights([p.example.sentence_id for p in prompts], draws, rng)
    accuracy = percentile_interval(float(right.mean()), weighted_means(weights, right), len(right))
    return Sampled(accuracy, sum(a not in words.values() for a in answers))
