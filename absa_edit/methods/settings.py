"""What every method is told, and which ones there are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from omegaconf import MISSING

from absa_edit.errors import SettingsError
from absa_edit.localizers.settings import LOCALIZERS
from absa_edit.registry import Registry

METHODS: Registry[Any] = Registry("method", "absa_edit.methods")
"""Classes of `methods.base.Method` by name; typed there, since settings know nothing above them."""


@dataclass
class MethodSettings:
    """How fast a method learns; each method adds its own settings in a subclass."""

    lr: float = MISSING
    """Peak learning rate of AdamW."""
    scale: bool = False
    """Multiply what training changed by the factor, 0.25 to 1.5, that has the least development log-loss."""

    def __post_init__(self) -> None:
        if not 0 <= self.lr < 1:
            raise SettingsError(f"lr={self.lr}: expected a learning rate from 0 to 1")
        if not 0 <= getattr(self, "dropout", 0.0) < 1:
            raise SettingsError("dropout: expected a share from 0 to 1")
        if getattr(self, "rank", 1) < 1:
            raise SettingsError("rank: expected at least 1")
        place = getattr(self, "locate", None)
        if place is not None and LOCALIZERS[place].takes:
            free = ", ".join(name for name in LOCALIZERS if not LOCALIZERS[name].takes)
            raise SettingsError(
                f"method.<name>.locate={place}: expected one of {free}; for your own layers use locate={place}"
            )


@dataclass
class LocatedSettings(MethodSettings):
    """Of methods that train what a plan names."""

    locate: str | None = None
    """A separate localizer for this method (the `random` control); None follows `locate`."""


@dataclass
class OptionallyLocatedSettings(LocatedSettings):
    """Of methods that can train in all layers or where a plan says."""

    located: bool = False
    """Train in the layers that the plan names, not in all."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.locate is not None and not self.located:
            raise SettingsError(f"method.<name>.locate={self.locate} goes with method.<name>.located=true")
