"""The training loss: negative log-likelihood of the gold label word, computed at the answer only."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from absa_edit.data.prompts import Labels, Prompt
from absa_edit.methods.adapted_model import AdaptedModel
from absa_edit.model.activation_cache import ActivationCache
from absa_edit.model.onednn_linear import OneDNN
from absa_edit.progress import Progress, silent


class AnswerLoss(nn.Module):
    """Sum over examples of -log p(gold word | prompt), each word's tokens averaged.

    A module, so that accelerate can wrap it (DDP averages its gradients, autocast its products).
    """

    def __init__(
        self,
        adapted: AdaptedModel,
        prompts: Sequence[Prompt],
        labels: Labels,
        *,
        cache_gib: float,
        progress: Progress = silent,
    ) -> None:
        super().__init__()
        self.model = adapted.model
        self.representation = adapted.representation
        self.penalty = adapted.penalty
        self.answers = adapted.answers(prompts, [labels[p.example.label] for p in prompts])
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
            logits = self.answers.logits(indices, self.frozen).float()
        losses = cross_entropy(logits, answer_tokens.target, reduction="none")
        total = (losses * answer_tokens.share).sum()
        return total if self.penalty is None else total + len(indices) * self.penalty()
