"""What each method trains, and how fast."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import MISSING

from absa_edit.errors import SettingsError
from absa_edit.localizers.settings import Localiser
from absa_edit.records import Role


@dataclass
class Method:
    """What every method has: how fast it learns."""

    lr: float = MISSING
    """Peak learning rate of AdamW."""

    def __post_init__(self) -> None:
        if not 0 <= self.lr < 1:
            raise SettingsError(f"lr={self.lr}: expected a learning rate from 0 to 1")
        if not 0 <= getattr(self, "dropout", 0.0) < 1:
            raise SettingsError("dropout: expected a share from 0 to 1")
        if getattr(self, "rank", 1) < 1:
            raise SettingsError("rank: expected at least 1")
        if getattr(self, "locate", None) in (Localiser.manual, Localiser.file):
            raise SettingsError(
                "method.<name>.locate: expected trace, random or all; for your own layers use locate=manual"
            )


@dataclass
class ZeroShot(Method):
    """The base model as it is."""

    lr: float = 0.0


@dataclass
class Edit(Method):
    """Rank-limited deltas on the located component outputs."""

    locate: Localiser | None = None
    """A localiser of its own for this method (the `random` control); None follows `locate`."""
    alpha: float = 8.0
    """The delta is scaled by alpha / rank, the same at every site."""
    dropout: float = 0.0
    weights: bool = True
    """Train the deltas; false leaves the representation edit alone."""
    representation: bool = False
    """Add LoReFT on the residual stream of the located layers, at `position`."""
    representation_rank: int = 4
    representation_lr: float = 2e-3
    position: Role = Role.aspect_again
    """The last token with this role is edited. Source: arXiv 2503.15117, official code."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.weights or self.representation):
            raise SettingsError("method: an edit with weights=false and representation=false trains nothing")


@dataclass
class Delta(Method):
    """The located weight matrices, trained in full."""

    locate: Localiser | None = None


@dataclass
class Lora(Method):
    """PEFT LoRA on all linear layers of all blocks."""

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0


@dataclass
class Full(Method):
    """Every weight."""


METHODS: dict[str, type[Method]] = {
    "zero_shot": ZeroShot,
    "edit": Edit,
    "random": Edit,
    "delta": Delta,
    "lora": Lora,
    "full": Full,
}
