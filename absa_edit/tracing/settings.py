"""What is corrupted, what is restored, on how many examples."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from absa_edit.errors import SettingsError
from absa_edit.model.settings import Dtype
from absa_edit.records import Part, Role


class Corruption(StrEnum):
    noise = "noise"
    counterfactual = "counterfactual"
    mean = "mean"


class Engine(StrEnum):
    """How the effect of a restoration is found."""

    exact = "exact"
    """Every restoration is run."""
    attribution = "attribution"
    """All are estimated to first order from a few backward passes."""
    auto = "auto"
    """All are estimated, and those that can decide a plan are run."""


class TracedModel(StrEnum):
    """Which model is traced; a plan always goes to the base model."""

    base = "base"
    adapted = "adapted"
    """The base model after a short fit (`trace.adapt`), as in the AAAI-25 paper: who knows nothing of the task has no
    place where it decides."""
    both = "both"
    """The adapted one, whose trace the plan is made of, and the base beside it."""
    auto = "auto"
    """The base, or the adapted one where the base answers no better than its labels' frequencies alone would."""


class Tokens(StrEnum):
    """Which tokens the noise falls on."""

    aspect = "aspect"
    """The aspect, in the sentence and in the question."""
    context = "context"
    """The sentence without the aspect: where the opinion is."""
    sentence = "sentence"
    all = "all"
    """Every token, as in the AAAI-25 paper."""


@dataclass
class AdaptSettings:
    """The short fit that comes before a trace of the adapted model; what is not said here is as in `fit`."""

    method: str | None = None
    """A method that trains, needs no plan and can be folded into the weights, with its own defaults; it has to be
    named."""
    lr: float | None = None
    """Peak learning rate; by itself the method's own."""
    examples: int | None = None
    """Training examples (seeded draw of whole sentences); by itself all."""
    epochs: int = 2

    def __post_init__(self) -> None:
        for key in ("examples", "epochs"):
            if (value := getattr(self, key)) is not None and value < 1:
                raise SettingsError(f"trace.adapt.{key}={value}: expected at least 1")


@dataclass
class TraceSettings:
    """Causal tracing: what is corrupted, what is restored, on how many examples."""

    model: TracedModel = TracedModel.base
    adapt: AdaptSettings = field(default_factory=AdaptSettings)
    again: bool = False
    """Also trace the model that the exported (else the first trained) method made, and compare with the trace
    before."""
    engine: Engine = Engine.exact
    examples: int = 100
    """Training examples looked at (seeded draw); the filter keeps some of them."""
    samples: int = 3
    """Noise samples an example, the same ones for every restored site; estimates are made of the first `steps`."""
    noise: float = 3.0
    """Standard deviation of the noise in standard deviations of the token embeddings."""
    corruption: Corruption = Corruption.noise
    tokens: Tokens = Tokens.sentence
    parts: list[Part] = field(default_factory=lambda: [Part.block, Part.attn, Part.mlp])
    roles: list[Role] = field(default_factory=list)
    """Tokens that are restored together; empty are all that the task's prompts have, but for the instruction."""
    filter: bool = True
    """Keep only examples that the clean run gets right and the corrupted run wrong, as the paper does."""
    window: int = 3
    """Neighbouring layers restored together for attn and mlp (block restores one layer)."""
    dtype: Dtype | None = None
    """Of the matrix products inside the blocks (on a CPU not of attention's own); the residual stream, norms and
    softmax keep the model's dtype. By itself float32, the model's own, for what is run exactly; for estimates, which
    err by far more than that rounds, bfloat16 where the device has units for it and the weights are float32. The cells
    that `auto` runs keep the model's in any case."""
    batch_tokens: int = 16384
    """Most hidden states (rows x tokens) in one batch; bounds memory, and changes no more than rounding: a trace that
    was stopped goes on with another."""
    steps: int = 3
    """Gradients an example of attribution: at points between corrupted and clean input, dealt out to the samples. With
    more samples than these, `auto` judges by the first ones which examples pass the filter."""
    checked: int = 10
    """Kept examples that attribution is compared with the exact engine on."""
    grids: int = 0
    """Kept examples to trace token by token too, for a picture of each; one costs as much as several examples."""

    @property
    def estimated(self) -> bool:
        """Whether some effects are estimated, and not run."""
        return self.engine is not Engine.exact

    def __post_init__(self) -> None:
        for key in ("examples", "samples", "window", "batch_tokens", "steps", "checked"):
            if getattr(self, key) < 1:
                raise SettingsError(f"trace.{key}={getattr(self, key)}: expected at least 1")
        if self.grids < 0 or self.noise < 0 or not {*self.parts} - {Part.head}:
            raise SettingsError(
                "trace: expected noise and grids of 0 or more, and in parts at least one of block, "
                "attn, mlp (head is traced beside them)"
            )
