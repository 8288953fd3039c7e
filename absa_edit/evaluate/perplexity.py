"""Damage to the language model: perplexity on neutral text before and after an edit."""

from __future__ import annotations

from importlib.resources import files

import torch
from transformers import PreTrainedTokenizerBase

from absa_edit.adapt import Adapted
from absa_edit.lm.answer import answer_logits, rows


def neutral_text() -> list[str]:
    """Plain factual paragraphs without opinions, written for this project."""
    text = (files("absa_edit") / "assets" / "neutral.txt").read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line]


@torch.no_grad()
def perplexity(adapted: Adapted, tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> float:
    """exp of the mean negative log-likelihood of a token, over all tokens but each text's first.

    A representation edit is left out: it acts at the aspect, and neutral text has none.
    """
    decoder = adapted.decoder
    sequences = [tokenizer(text)["input_ids"] for text in texts]
    batch = rows([s[:1] for s in sequences], [s[1:] for s in sequences], decoder.device)
    frame = decoder.begin(decoder.embed(batch.input_ids))
    hidden = decoder.run(frame.hidden, 0, decoder.layers, frame)
    logits = answer_logits(decoder, hidden, batch).float()
    targets = batch.targets[batch.valid]
    return float(torch.nn.functional.cross_entropy(logits, targets).exp())
