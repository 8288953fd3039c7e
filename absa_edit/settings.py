"""Typed settings of a run; each key is explained in the room that reads it, what does not go together is told here.

YAML under `conf/` holds values, these classes hold types; `compose.py` makes Hydra check every key against them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from omegaconf import MISSING

from absa_edit.analyses.settings import AnalysisSettings
from absa_edit.data.settings import DataSettings, PromptSettings
from absa_edit.errors import SettingsError
from absa_edit.evaluation.settings import ScoreSettings
from absa_edit.export.settings import ExportSettings
from absa_edit.localizers.settings import LOCALIZERS, LocateSettings
from absa_edit.methods.settings import MethodSettings
from absa_edit.model.settings import ModelSettings
from absa_edit.records import Part
from absa_edit.tasks.base import task_of
from absa_edit.tasks.settings import TaskSettings
from absa_edit.tracing.settings import Engine, TraceSettings
from absa_edit.tracking.settings import TrackSettings
from absa_edit.training.settings import FitSettings

NO_RESULT = ("data.path", "model.device", "model.device_map", "trace.batch_tokens")
"""Settings of a group that change no result, but for rounding: runs that differ in them alone are the same run."""


class Stage(StrEnum):
    trace = "trace"
    locate = "locate"
    methods = "methods"
    analyses = "analyses"
    export = "export"
    report = "report"


@dataclass
class Settings:
    """Everything a run depends on."""

    name: str = MISSING
    """Experiment name, first part of the output folder; set by the experiment file."""
    seed: int = 0
    output: str = "outputs"
    plugins: list[str] = field(default_factory=list)
    """Python files that register plug-ins of your own; on the command line alone: they are read before all else."""
    stages: list[Stage] = field(default_factory=lambda: list(Stage))
    task: TaskSettings = field(default_factory=TaskSettings)
    data: DataSettings = field(default_factory=DataSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    prompt: PromptSettings = field(default_factory=PromptSettings)
    trace: TraceSettings = field(default_factory=TraceSettings)
    locate: LocateSettings = field(default_factory=LocateSettings)
    method: dict[str, MethodSettings] = field(default_factory=dict)
    """Methods to run, by name; each option of the group `method` adds one."""
    analysis: dict[str, AnalysisSettings] = field(default_factory=dict)
    """Analyses to run, by name; each option of the group `analysis` adds one."""
    compare: list[list[str]] = field(default_factory=list)
    """Pairs of methods to compare, e.g. `[[edit, random], [edit, lora]]`; empty is the exported method with each
    other."""
    fit: FitSettings = field(default_factory=FitSettings)
    score: ScoreSettings = field(default_factory=ScoreSettings)
    export: ExportSettings = field(default_factory=ExportSettings)
    track: TrackSettings = field(default_factory=TrackSettings)

    def __post_init__(self) -> None:
        for pair in self.compare:
            if len(pair) != 2 or set(pair) - set(self.method):
                known = ", ".join(self.method) or "none"
                raise SettingsError(f"compare={pair}: expected two of the methods that are run ({known})")
        task_of(self.task, self.prompt)  # what makes no task, or no prompt of it, is told before anything is loaded
        if self.seed < 0:
            raise SettingsError(f"seed={self.seed}: expected 0 or more")
        if not self.stages:
            raise SettingsError(f"stages=[]: expected at least one of {', '.join(Stage)}")
        if Stage.export in self.stages and Stage.methods not in self.stages:
            raise SettingsError("stages: export needs methods beside it; those trained before are found, not trained")
        if Stage.report in self.stages and not {Stage.trace, Stage.methods, Stage.analyses} & set(self.stages):
            raise SettingsError(
                "stages: report needs trace, methods or analyses beside it, whose results it shows; what was done "
                "before is found"
            )
        traced = any(LOCALIZERS[located.kind].needs_trace for located in self.localizers())
        if {Stage.trace, Stage.locate} <= set(self.stages) and traced:
            missing = [part.value for part in self.locate.parts if part not in self.trace.parts]
            if missing:
                raise SettingsError(
                    f"locate.parts has {missing[0]}, which is not traced: add it to trace.parts, or take it off"
                )
            if self.locate.parts == [Part.head] and self.trace.engine is Engine.auto:
                raise SettingsError(
                    "locate.parts=[head]: trace.engine=auto runs no head exactly; take exact or attribution"
                )

    def localizers(self) -> list[LocateSettings]:
        """What the plans of this run come from; a method's own control follows the run's plan.

        Raises `SettingsError` for a method's own localizer that does not go with `locate.*`.
        """
        kinds = {kind for method in self.method.values() if (kind := getattr(method, "locate", None))}
        return [self.locate, *(self.locate.by(kind) for kind in sorted(kinds) if not LOCALIZERS[kind].follows)]
