"""Where an edit goes: what every localizer is told, and which ones there are."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any

from absa_edit.errors import SettingsError
from absa_edit.records import Part
from absa_edit.registry import Registry

LOCALIZERS: Registry[Any] = Registry("localizer", "absa_edit.localizers")
"""Classes of `localizers.base.Localizer` by name; typed there, since settings know nothing above them."""


class Shape(StrEnum):
    window = "window"
    """One run of neighbouring layers, all parts in it."""
    sites = "sites"
    """The strongest sites anywhere."""


@dataclass
class LocateSettings:
    """Where the edit goes; a localizer with further settings adds them in a subclass."""

    kind: str = "trace"
    """A registered localizer: trace, random, all, manual, file, another of `localizers/`, or one of your own."""
    layers: list[int] = field(default_factory=list)
    """For `manual`: the layers to edit, counted from 0."""
    depth: list[float] = field(default_factory=list)
    """For `depth`: a share [from, to] of the model's depth, 0 to 1; edited are the layers whose middle lies in it: i of
    n with from <= (i + 0.5) / n < to. [0.3125, 0.5] is layers 10-15 of 32 and 6-8 of 18."""
    parts: list[Part] = field(default_factory=lambda: [Part.attn, Part.mlp])
    """Component outputs to edit in the chosen layers: attn is `o_proj`, mlp is `down_proj`; or `[head]`, single heads:
    each its columns of `o_proj`. `manual`, `depth` and `all` take every head of their layers; a plan file names any."""
    width: int | None = None
    """Layers in the window; None is a third of the model's."""
    rank: int = 4
    """Of the delta of each site."""
    shape: Shape = Shape.window
    sites: int | None = None
    """How many, for `shape=sites` by a localizer that chooses; None is as many as a window holds. Heads need a
    number."""
    plan: str | None = None
    """For `file`: a `plan.json` to use as it is."""

    def __post_init__(self) -> None:
        localizer = LOCALIZERS[self.kind]
        if self.rank < 1:
            raise SettingsError(f"locate.rank={self.rank}: expected at least 1")
        if not self.parts or (set(self.parts) - {Part.attn, Part.mlp} and self.parts != [Part.head]):
            raise SettingsError("locate.parts: expected attn, mlp or both, or head alone")
        if self.parts == [Part.head] and localizer.chooses and self.sites is None:
            raise SettingsError("locate.parts=[head]: say how many, e.g. locate.shape=sites locate.sites=16")
        if self.sites is not None and not (localizer.chooses and self.shape is Shape.sites and self.width is None):
            by_hand = "" if localizer.chooses else f", and not with locate={self.kind}, which chooses none"
            raise SettingsError(
                f"locate.sites={self.sites} goes with locate.shape=sites and without locate.width{by_hand}"
            )
        if self.sites is not None and self.sites < 1:
            raise SettingsError(f"locate.sites={self.sites}: expected at least 1")
        if self.depth and not (len(self.depth) == 2 and 0 <= self.depth[0] < self.depth[1] <= 1):
            raise SettingsError(f"locate.depth={self.depth}: expected two shares from 0 to 1, the smaller one first")
        for key, example in (("layers", "[4,5]"), ("depth", "[0.3,0.5]"), ("plan", "plan.json")):
            takes = next(name for name in LOCALIZERS if LOCALIZERS[name].takes == key)
            if bool(getattr(self, key)) != (localizer.takes == key):
                raise SettingsError(
                    f"locate.{key}={getattr(self, key)} with locate={self.kind}: {key} goes with locate={takes}, "
                    f"e.g. locate={takes} locate.{key}={example}"
                )

    def by(self, kind: str) -> LocateSettings:
        """The same choice by another localizer, one that needs no layers, depth or file."""
        localizer = LOCALIZERS[kind]
        shared = {f.name: getattr(self, f.name) for f in fields(LocateSettings)}
        sites = self.sites if localizer.chooses else None
        by_hand: dict[str, Any] = {"layers": [], "depth": [], "plan": None}
        made: LocateSettings = localizer.settings(**shared | by_hand | {"kind": kind, "sites": sites})
        return made
