"""What is left to take away."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class ExportSettings:
    """What is left to take away."""

    method: str | None = None
    """The method to export; None is `edit` where it was run, else the last trained one."""
    merged: bool = True
    """Write the merged checkpoint too."""
