"""Training, the same for every method."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from absa_edit.errors import SettingsError
from absa_edit.model.settings import Precision


class Softmax(StrEnum):
    """What the loss takes the gold word's probability among."""

    vocabulary = "vocabulary"
    """All tokens, as language models are trained: the model learns to write one of the label words, too."""
    labels = "labels"
    """The label words' tokens, as answers are scored. No other row of the output layer is read, which is faster where
    the vocabulary is large; what the model would write freely is not trained."""


@dataclass
class FitSettings:
    """Training, the same for every method."""

    epochs: int = 3
    batch_size: int = 16
    """Examples an optimiser step."""
    warmup: float = 0.1
    """Share of the steps that the learning rate rises over; then it falls linearly to 0."""
    weight_decay: float = 0.0
    end: bool = False
    """Learn to end an answer, too: the tokenizer's end token follows each word."""
    clip: float = 1.0
    """Largest gradient norm."""
    patience: int = 2
    """Epochs without a better development macro-F1 before stopping."""
    precision: Precision | None = None
    """Of the training's matrix products (autocast; on a CPU not of attention's own); scoring always runs in the model's
    own dtype. By itself bf16 where the device has units for it (a GPU; AVX-512 with bf16 or AMX in a CPU) or the
    model's weights are halves, else float32."""
    softmax: Softmax = Softmax.labels
    """What the loss takes the gold word's probability among: the label words' tokens, as answers are scored, or the
    whole vocabulary."""
    cache_gib: float = 4.0
    """Most memory for the hidden states that the plan leaves frozen; beyond it they are memory-mapped."""

    def __post_init__(self) -> None:
        for key in ("epochs", "batch_size", "patience"):
            if getattr(self, key) < 1:
                raise SettingsError(f"fit.{key}={getattr(self, key)}: expected at least 1")
        if not 0 <= self.warmup <= 1 or self.clip <= 0:
            raise SettingsError("fit: expected warmup from 0 to 1 and clip above 0")
