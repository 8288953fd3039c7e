"""Damage to the language model: perplexity on neutral text before and after an edit."""

from __future__ import annotations

import math
from importlib.resources import files

import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerBase

from absa_edit.methods.adapted_model import AdaptedModel
from absa_edit.model.answer_logits import AnswerLogits


def neutral_text() -> list[str]:
    """Plain factual paragraphs without opinions, written for this project."""
    text = (files("absa_edit") / "assets" / "neutral.txt").read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line]


@torch.no_grad()
def perplexity(adapted: AdaptedModel, tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> float | None:
    """exp of the mean negative log-likelihood of a token, over all tokens but each text's first.

    None where that is not finite: the model's states overflow on this text, or its loss beyond exp.
    A representation edit is left out: it acts at the aspect, and neutral text has none.
    """
    sequences = [tokenizer(text)["input_ids"] for text in texts]
    firsts, others = [s[:1] for s in sequences], [s[1:] for s in sequences]
    answers = AnswerLogits(adapted.runner, firsts, others, prefix=adapted.prefix_keys)
    indices = range(len(sequences))
    value = float(cross_entropy(answers.logits(indices).float(), answers.asked(indices).target).double().exp())
    return value if math.isfinite(value) else None
