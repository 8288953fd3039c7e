"""Answers to prompts: the label whose word has the highest probability."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from absa_edit.data.prompts import Labels, Prompt
from absa_edit.errors import ModelError
from absa_edit.methods.adapted_model import AdaptedModel, Positions
from absa_edit.model.activation_cache import ActivationCache
from absa_edit.model.answer_logits import AnswerLogits
from absa_edit.progress import Progress, silent
from absa_edit.results import Prediction
from absa_edit.storage import content_hash


@torch.no_grad()
def log_probabilities(
    adapted: AdaptedModel,
    prompts: Sequence[Prompt],
    labels: Labels,
    *,
    batch_tokens: int,
    frozen: ActivationCache | None = None,
    progress: Progress = silent,
    name: str = "score",
) -> Float[np.ndarray, "example label"]:
    """Log-probability of each label's whole word after each prompt, normalised over the three labels.

    Each prompt runs once, also where words have several tokens. Batches depend on the prompts alone, so that the same
    weights give the same bits. `frozen` are the states of `scored(adapted, prompts, labels)` below the method's start.
    What a calibrated method answers to prompts that say nothing is taken off. Raises `ModelError` where a probability
    is nan.
    """
    scores = _scores(adapted, prompts, labels, batch_tokens, frozen, progress, name)
    if adapted.content_free:
        to_nothing = _scores(adapted, adapted.content_free, labels, batch_tokens, None, silent, name)
        scores = _normalised(scores - np.logaddexp.reduce(to_nothing, axis=0))
    return scores


def _scores(
    adapted: AdaptedModel,
    prompts: Sequence[Prompt],
    labels: Labels,
    batch_tokens: int,
    frozen: ActivationCache | None,
    progress: Progress,
    name: str,
) -> Float[np.ndarray, "example label"]:
    """Those of the model as it answers, not calibrated."""
    if adapted.head:
        return _normalised(adapted.head.scores(adapted.runner, prompts, batch_tokens, progress, name).numpy())
    answers = scored(adapted, prompts, labels)
    words = list(labels.values())
    one_token = all(len(word) == 1 for word in words)
    tokens = [word[0] for word in words] if one_token else None  # of the vocabulary the labels need no other row then
    scores = np.zeros((len(answers.targets), len(words) if one_token else 1))
    batches = list(answers.tree.buckets(batch_tokens))
    for batch in progress(batches, name, len(batches)):
        log_probs = answers.logits(batch, frozen, tokens).float().log_softmax(-1)
        if one_token:
            label_scores = log_probs
        else:
            answer_tokens = answers.asked(batch)
            token_scores = log_probs.gather(1, answer_tokens.target[:, None])[:, 0]
            label_scores = token_scores.new_zeros(len(batch)).index_add(0, answer_tokens.sequence, token_scores)[
                :, None
            ]
        scores[batch] = label_scores.cpu().double().numpy()
    if wrong := int(np.isnan(scores).any(1).sum()):
        raise ModelError(
            f"{name}: the model's answers to {wrong} of {len(scores)} prompts are not numbers: its states or weights "
            "overflow. Load it in float32 (model.dtype=float32), or train with a lower lr"
        )
    return _normalised(scores.reshape(len(prompts), len(words)))


def scored(adapted: AdaptedModel, prompts: Sequence[Prompt], labels: Labels) -> AnswerLogits:
    """Each prompt with one label word where all are one token, which its logits tell all of; else with each."""
    words = list(labels.values())
    if all(len(word) == 1 for word in words):
        words = words[:1]
    return adapted.answers([p for p in prompts for _ in words], words * len(prompts), apart=True)


def _normalised(scores: Float[np.ndarray, "example label"]) -> Float[np.ndarray, "example label"]:
    return scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)


@dataclass
class BaseStates:
    """States of the base model below the blocks that methods change; each is computed once for all methods."""

    labels: Labels
    dtype: torch.dtype
    """Of the base model; a method that trains a copy in another one shares nothing."""
    starts: Sequence[int]
    """The first changed blocks of the methods that are going to be scored."""
    batch_tokens: int
    gib: float
    """Most memory for one data set's states at one block; beyond it they are memory-mapped."""
    progress: Progress = silent
    store: Callable[[str], Path] | None = None
    """Where states lie that outlive the run, by the hash of what they depend on besides the model."""
    _kept: dict[tuple[str, Positions | None], dict[int, ActivationCache]] = field(default_factory=dict)

    def of(self, adapted: AdaptedModel, data: str, prompts: Sequence[Prompt]) -> ActivationCache | None:
        """What need not be computed when `adapted` is scored on the data set named `data`."""
        starts = sorted({start for start in self.starts if 0 < start <= adapted.start})
        if not starts or adapted.model.dtype != self.dtype:
            return None
        kept = self._kept.setdefault((data, adapted.positions(prompts)), {})
        below = None
        for start in starts:
            if start not in kept:
                tree = scored(adapted, prompts, self.labels).tree
                kept[start] = ActivationCache(
                    adapted.runner,
                    tree,
                    start,
                    gib=self.gib,
                    below=below,
                    batch_tokens=self.batch_tokens,
                    progress=self.progress,
                    store=self.store(content_hash(start, [*tree.before, *tree.ids.tolist()])) if self.store else None,
                )
            below = kept[start]
        return below


def predictions(
    method: str, test: str, prompts: Sequence[Prompt], labels: Sequence[str], scores: Float[np.ndarray, "example label"]
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
                e.label,
                labels[int(row.argmax())],
                {label: float(v) for label, v in zip(labels, np.exp(row), strict=True)},
            )
        )
    return tuple(rows)
