"""The training loss: negative log-likelihood of the gold label word, computed at the answer only."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from absa_edit.data.prompts import Labels, Prompt
from absa_edit.methods.adapted_model import AdaptedModel
from absa_edit.model.activation_cache import ActivationCache
from absa_edit.model.onednn_linear import OneDNN
from absa_edit.progress import Progress, silent
from absa_edit.training.settings import Softmax


class AnswerLoss(nn.Module):
    """Sum over examples of -log p(gold word | prompt), each word's tokens averaged.

    With `Softmax.labels` p is among the tokens of the label words, at each of the word's tokens.

    A module, so that accelerate can wrap it (DDP averages its gradients, autocast its products).
    """

    def __init__(
        self,
        adapted: AdaptedModel,
        prompts: Sequence[Prompt],
        labels: Labels,
        *,
        cache_gib: float,
        softmax: Softmax = Softmax.labels,
        progress: Progress = silent,
    ) -> None:
        super().__init__()
        self.model = adapted.model
        self.representation = adapted.representation
        self.prefix = adapted.prefix
        self.penalty = adapted.penalty
        self.answers = adapted.answers(prompts, [labels[p.example.label] for p in prompts])
        self.words: Tensor | None = None
        if softmax is Softmax.labels:
            tokens = sorted({token for word in labels.values() for token in word})
            self.words = torch.tensor(tokens, device=adapted.runner.device)
        self.frozen: ActivationCache | None = None
        self.products = OneDNN(adapted.runner.blocks, lay_out=True) if adapted.prefixes_known else None  # few rows
        if adapted.start > 0:
            self.frozen = ActivationCache(
                adapted.runner,
                self.answers.tree,
                adapted.start,
                gib=cache_gib,
                prefixes_known=adapted.prefixes_known,
                progress=progress,
            )

    def forward(self, indices: Sequence[int]) -> Float[Tensor, ""]:
        """Loss of the examples with these indices."""
        answer_tokens = self.answers.asked(indices)
        with self.products.on() if self.products else nullcontext():
            words = None if self.words is None else self.words.tolist()
            logits = self.answers.logits(indices, self.frozen, words).float()
        target = answer_tokens.target
        if self.words is not None:
            target = torch.searchsorted(self.words, target.contiguous())
        losses = cross_entropy(logits, target, reduction="none")
        total = (losses * answer_tokens.share).sum()
        return total if self.penalty is None else total + len(indices) * self.penalty()
