"""What is left to take away."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class ExportSettings:
    """What is left to take away."""

    method: str | None = None
    """The method to export, which is also the one that others are compared with; None is the first trained one, `none`
    is no export."""
    merged: bool = True
    """Write the merged checkpoint too."""
