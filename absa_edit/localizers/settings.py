"""Where an edit goes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum

from absa_edit.errors import SettingsError
from absa_edit.records import Part


class Localiser(StrEnum):
    trace = "trace"
    random = "random"
    all = "all"
    manual = "manual"
    file = "file"
    """Read `locate.plan`."""


class Shape(StrEnum):
    window = "window"
    """One run of neighbouring layers, all parts in it."""
    sites = "sites"
    """The strongest sites anywhere."""


@dataclass
class LocateSettings:
    """Where the edit goes."""

    kind: Localiser = Localiser.trace
    layers: list[int] = field(default_factory=list)
    """For `manual`: the layers to edit, counted from 0."""
    parts: list[Part] = field(default_factory=lambda: [Part.attn, Part.mlp])
    """Component outputs to edit in the chosen layers: attn is `o_proj`, mlp is `down_proj`; or `[head]`, single heads:
    each its columns of `o_proj`. `manual` and `all` take every head of their layers; a plan file names any."""
    width: int | None = None
    """Layers in the window; None is a third of the model's."""
    rank: int = 4
    """Of the delta of each site."""
    shape: Shape = Shape.window
    sites: int | None = None
    """How many, for `shape=sites` by trace or random; None is as many as a window holds. Heads need a number."""
    plan: str | None = None
    """A `plan.json` to use as it is (`kind=file`)."""

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise SettingsError(f"locate.rank={self.rank}: expected at least 1")
        if not self.parts or (set(self.parts) - {Part.attn, Part.mlp} and self.parts != [Part.head]):
            raise SettingsError("locate.parts: expected attn, mlp or both, or head alone")
        chosen = self.kind in (Localiser.trace, Localiser.random)
        if self.parts == [Part.head] and chosen and self.sites is None:
            raise SettingsError("locate.parts=[head]: say how many, e.g. locate.shape=sites locate.sites=16")
        if self.sites is not None and not (chosen and self.shape is Shape.sites and self.width is None):
            raise SettingsError(
                f"locate.sites={self.sites} goes with locate.shape=sites and locate=trace or random, and without "
                "locate.width"
            )
        if self.sites is not None and self.sites < 1:
            raise SettingsError(f"locate.sites={self.sites}: expected at least 1")
        if (self.kind is Localiser.manual) != bool(self.layers):
            raise SettingsError(
                f"locate.layers={self.layers} with locate={self.kind.value}: layers go with locate=manual, "
                "e.g. locate=manual locate.layers=[4,5]"
            )
        if (self.kind is Localiser.file) != bool(self.plan):
            raise SettingsError("locate.plan goes with locate=file, e.g. locate=file locate.plan=plan.json")

    def by(self, kind: Localiser) -> LocateSettings:
        """The same choice by another localiser, one that needs neither layers nor a file."""
        sites = None if kind is Localiser.all else self.sites
        return replace(self, kind=kind, layers=[], plan=None, sites=sites)
