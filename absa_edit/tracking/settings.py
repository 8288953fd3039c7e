"""Where curves and tables go besides the run folder."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Tracker(StrEnum):
    wandb = "wandb"
    none = "none"


@dataclass
class TrackSettings:
    """Where curves and tables go besides the run folder."""

    kind: Tracker = Tracker.wandb
    project: str = "absa_edit"
    entity: str | None = None
