"""Damage to the language model: perplexity on neutral text before and after an edit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerBase

from absa_edit.methods.adapted_model import AdaptedModel
from absa_edit.model.answer_logits import AnswerLogits
from absa_edit.progress import Progress, silent
from absa_edit.resampling import percentile_interval
from absa_edit.results import Interval

MOST_LOGITS = 2**27
"""Logits at once, half a gibibyte in float32: vocabularies have up to 262,144 tokens."""


@torch.no_grad()
def perplexity(
    adapted: AdaptedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    *,
    draws: int,
    rng: np.random.Generator,
    batch_tokens: int = 4096,
    progress: Progress = silent,
    name: str = "perplexity",
) -> Interval | None:
    """exp of the mean negative log-likelihood of a token, over all tokens but each text's first.

    The 95 % interval resamples texts, of which `n` is the number. None where the value is not finite: the model's
    states overflow on these texts, or its loss beyond exp; and for a head, which writes no text.
    A representation edit is left out: it acts at places of the prompt that these texts do not have.
    """
    if adapted.head:
        return None
    sequences = [tokenizer(text)["input_ids"] for text in texts]
    firsts, others = [s[:1] for s in sequences], [s[1:] for s in sequences]
    answers = AnswerLogits(adapted.runner, firsts, others, prefix=adapted.prefix_keys)
    batches = list(answers.tree.buckets(min(batch_tokens, MOST_LOGITS // adapted.model.config.vocab_size)))
    losses: Float[np.ndarray, "text sum_and_tokens"] = np.zeros((len(texts), 2))
    for batch in progress(batches, name, len(batches)):
        tokens = answers.asked(batch)
        each = cross_entropy(answers.logits(batch).float(), tokens.target, reduction="none")
        np.add.at(losses, np.asarray(batch)[tokens.sequence.cpu().numpy()], _counted(each))
    weights = rng.multinomial(len(texts), np.full(len(texts), 1 / len(texts)), size=draws)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        value, resampled = (np.exp(sums[..., 0] / sums[..., 1]) for sums in (losses.sum(0), weights @ losses))
    return percentile_interval(float(value), resampled, len(texts)) if np.isfinite(value) else None


def _counted(losses: torch.Tensor) -> Float[np.ndarray, "token loss_and_1"]:
    plain = losses.double().cpu().numpy()
    return np.stack([plain, np.ones_like(plain)], axis=1)
