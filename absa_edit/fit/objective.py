"""The training loss: negative log-likelihood of the gold label word, computed at the answer only."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from absa_edit.adapt import Adapted
from absa_edit.data.prompts import Prompt
from absa_edit.lm.answer import answer_logits, rows
from absa_edit.lm.prefix import FrozenPrefix
from absa_edit.progress import Progress, silent
from absa_edit.records import Polarity


class AnswerLoss(nn.Module):
    """Sum over examples of -log p(gold word | prompt), each word's tokens averaged.

    A module, so that accelerate can wrap it (DDP averages its gradients, autocast its products).
    """

    def __init__(
        self,
        adapted: Adapted,
        prompts: Sequence[Prompt],
        labels: dict[Polarity, tuple[int, ...]],
        *,
        cache_gib: float,
        progress: Progress = silent,
    ) -> None:
        super().__init__()
        self.model = adapted.model
        self.representation = adapted.representation
        self.adapted = adapted
        self.prompts = prompts
        self.answers = [labels[p.example.polarity] for p in prompts]
        self.prefix: FrozenPrefix | None = None
        if adapted.start > 0:
            sequences = [[*p.ids, *a[:-1]] for p, a in zip(prompts, self.answers, strict=True)]
            self.prefix = FrozenPrefix(adapted.decoder, sequences, adapted.start, gib=cache_gib, progress=progress)

    def forward(self, indices: Sequence[int]) -> Float[Tensor, ""]:
        """Loss of the examples with these indices."""
        decoder = self.adapted.decoder
        prompts = [self.prompts[i] for i in indices]
        batch = rows([p.ids for p in prompts], [self.answers[i] for i in indices], decoder.device)
        with self.adapted.on(prompts):
            if self.prefix is None:
                frame = decoder.begin(decoder.embed(batch.input_ids))
                hidden = decoder.run(frame.hidden, 0, decoder.layers, frame)
            else:
                with torch.no_grad():
                    frame = decoder.begin(decoder.embed(batch.input_ids[:1]))
                entering = self.prefix.batch(indices, decoder.device)
                hidden = decoder.run(entering, self.prefix.start, decoder.layers, frame)
        logits = answer_logits(decoder, hidden, batch).float()
        losses = cross_entropy(logits, batch.targets[batch.valid], reduction="none")
        share = (batch.valid / batch.valid.sum(1, keepdim=True))[batch.valid]
        return (losses * share).sum()
