"""Answers for prompts: the label whose word has the highest probability, batched by length."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float

from absa_edit.adapt import Adapted
from absa_edit.data.prompts import Prompt
from absa_edit.lm.answer import label_log_probabilities, length_buckets
from absa_edit.progress import Progress, silent
from absa_edit.records import POLARITIES, Polarity, Prediction


@torch.no_grad()
def log_probabilities(
    adapted: Adapted,
    prompts: Sequence[Prompt],
    labels: dict[Polarity, tuple[int, ...]],
    *,
    batch_tokens: int,
    progress: Progress = silent,
    name: str = "score",
) -> Float[np.ndarray, "example label"]:
    """Log-probability of each label word after each prompt, normalised over the three labels.

    Batches depend on the prompts alone, so that the same weights give the same bits.
    """
    decoder = adapted.decoder
    words = [labels[p] for p in POLARITIES]
    out = np.zeros((len(prompts), len(words)))
    batches = list(length_buckets([len(p.ids) for p in prompts], batch_tokens))
    for batch in progress(batches, name, len(batches)):
        chosen = [prompts[i] for i in batch]
        with adapted.on(chosen):
            scores = label_log_probabilities(decoder, [p.ids for p in chosen], words)
        out[batch] = scores.double().log_softmax(-1).cpu().numpy()
    return out


def predictions(
    method: str, test: str, prompts: Sequence[Prompt], scores: Float[np.ndarray, "example label"]
) -> tuple[Prediction, ...]:
    """One record an example, from its label log-probabilities."""
    rows = []
    for prompt, row in zip(prompts, scores, strict=True):
        e = prompt.example
        rows.append(
            Prediction(
                method,
                test,
                e.id,
                e.sentence_id,
                e.text,
                e.aspect,
                e.polarity,
                POLARITIES[int(row.argmax())],
                {p.value: float(v) for p, v in zip(POLARITIES, np.exp(row), strict=True)},
            )
        )
    return tuple(rows)
