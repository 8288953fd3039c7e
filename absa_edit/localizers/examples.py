"""What localizers have in common that look at training examples: how many, which ones, in which batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from absa_edit.context import Context
from absa_edit.data.prompts import Prompt
from absa_edit.errors import PlanError, SettingsError
from absa_edit.localizers.base import Localizer
from absa_edit.localizers.settings import LocateSettings

ROWS = 8
"""Examples in a batch."""


@dataclass
class OnExamples(LocateSettings):
    """Where the edit goes, by a localizer that looks at training examples."""

    examples: int = 100
    """How many, drawn by the seed: with as many in `trace.examples`, those that a trace looks at."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.examples < 1:
            raise SettingsError(f"locate.examples={self.examples}: expected at least 1")


class LooksAtExamples(Localizer):
    """One that looks at training examples in the model that is going to be edited."""

    settings = OnExamples

    def check(self, ctx: Context, settings: LocateSettings) -> None:
        super().check(ctx, settings)
        if not ctx.splits.train.examples:
            raise PlanError(
                f"locate={self.name} looks at training examples, and there are none; take another localizer"
            )


def prompts_of(ctx: Context, settings: LocateSettings) -> list[Prompt]:
    """The drawn examples. Raises `PlanError` where there are none."""
    assert isinstance(settings, OnExamples)
    if prompts := ctx.drawn_prompts(settings.examples):
        return prompts
    raise PlanError(f"locate={settings.kind} looks at training examples, and there are none; take another localizer")


def batches(lengths: Sequence[int]) -> list[list[int]]:
    """The indices of sequences of like length, `ROWS` together."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    return [order[k : k + ROWS] for k in range(0, len(order), ROWS)]


def padded(rows: Sequence[Sequence[int]], device: torch.device) -> Int[Tensor, "row pos"]:
    """Rows of tokens, padded on the right, where no token of a causal model sees the padding."""
    tensors = [torch.tensor(row, device=device) for row in rows]
    return torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True)
