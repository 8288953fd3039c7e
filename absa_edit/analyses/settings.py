"""What an analysis is told, and which ones there are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from absa_edit.registry import Registry

ANALYSES: Registry[Any] = Registry("analysis", "absa_edit.analyses")
"""Classes of `analyses.base.Analysis` by name; typed there, since settings know nothing above them."""


@dataclass
class AnalysisSettings:
    """Of an analysis without settings; others add theirs in a subclass."""
