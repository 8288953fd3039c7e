"""What an analysis is: it looks at the model and its data, and says what it found in a record and a section."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar, cast

from absa_edit.analyses.settings import ANALYSES, AnalysisSettings
from absa_edit.context import Context
from absa_edit.table import Section

A = TypeVar("A", bound="type[Analysis]")


class Analysis(ABC):
    """Runs once a run, on the base model; its record is kept, and its section is part of every report."""

    name: ClassVar[str]
    """Under which it is registered."""
    settings: ClassVar[type[AnalysisSettings]] = AnalysisSettings

    @abstractmethod
    def run(self, ctx: Context, settings: AnalysisSettings) -> dict[str, Any]:
        """What was found, as plain JSON values with intervals; depends on nothing but `ctx` and `settings`."""

    @abstractmethod
    def section(self, record: dict[str, Any]) -> Section:
        """The record as reports show it."""


def analysis(name: str) -> Callable[[A], A]:
    """A decorator that registers an analysis: `@analysis("probes")`."""

    def register(kind: A) -> A:
        kind.name = name
        return cast("A", ANALYSES(name)(kind))

    return register


def analysis_of(settings: AnalysisSettings, name: str) -> Analysis:
    """The analysis called `name`; or, under a name of a run's own, that which these are the settings of."""
    if name in ANALYSES:
        instance: Analysis = ANALYSES[name]()
        return instance
    kinds = (ANALYSES[known] for known in ANALYSES)
    instance = next(kind for kind in kinds if kind.settings is type(settings))()
    return instance
