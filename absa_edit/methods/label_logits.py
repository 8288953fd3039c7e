"""A data set that a method asks its model about while it fits itself: the logits of the labels' first tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from absa_edit.context import Context
from absa_edit.errors import ModelError
from absa_edit.methods.adapted_model import AdaptedModel
from absa_edit.model.activation_cache import ActivationCache
from absa_edit.records import Dataset
from absa_edit.resampling import label_numbers


class LabelLogits:
    """The prompts of a data set, ready to be asked of the model as it is then; what lies below its start runs once."""

    def __init__(self, ctx: Context, adapted: AdaptedModel, data: Dataset) -> None:
        self.runner = adapted.runner
        self.words = first_tokens(ctx)
        self.gold = label_numbers([e.label for e in data.examples], ctx.task.labels)
        self.answers = adapted.answers(ctx.encode(data), [self.words[:1]] * len(data))
        self.batches = list(self.answers.tree.buckets(ctx.settings.score.batch_tokens))
        self.frozen: ActivationCache | None = None
        if adapted.start > 0:
            gib = ctx.settings.fit.cache_gib
            self.frozen = ActivationCache(adapted.runner, self.answers.tree, adapted.start, gib=gib)

    def __call__(self, indices: Sequence[int]) -> Float[Tensor, "example label"]:
        """The logits of some prompts."""
        return self.answers.logits(indices, self.frozen, self.words).float()

    def gold_of(self, indices: Sequence[int]) -> Int[Tensor, " example"]:
        """The numbers of their labels."""
        return torch.from_numpy(self.gold[list(indices)]).to(self.runner.device)


def first_tokens(ctx: Context) -> list[int]:
    """The first token of each label's word, in order; of the words' further tokens none is looked at.

    Raises `ModelError` where two are the same.
    """
    first = [word[0] for word in ctx.labels.values()]
    if len(set(first)) < len(first):
        raise ModelError(
            f"prompt.labels={ctx.settings.prompt.labels}: two words begin with the same token, and first tokens "
            "alone are looked at here; choose other words, or another method"
        )
    return first
