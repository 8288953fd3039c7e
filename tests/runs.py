"""Whole runs of the pipeline on a few examples of the bundled sample, for the tests that look at what they leave."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

from rich.console import Console

from absa_edit.context import Context
from absa_edit.data.settings import DataSettings
from absa_edit.evaluation.settings import ScoreSettings
from absa_edit.localizers.settings import LocateSettings
from absa_edit.methods.delta import Delta
from absa_edit.methods.full import Full
from absa_edit.methods.lora import Lora
from absa_edit.methods.low_rank_edit import Edit
from absa_edit.methods.zero_shot import ZeroShot
from absa_edit.model.settings import ModelSettings
from absa_edit.pipeline import execute as pipeline
from absa_edit.pipeline.prepare import prepare
from absa_edit.records import Role
from absa_edit.results import RunRecord
from absa_edit.settings import Settings, Stage
from absa_edit.tracing.settings import TraceSettings
from absa_edit.tracking.settings import Tracker, TrackSettings
from absa_edit.training.settings import FitSettings

ROOT = Path(__file__).resolve().parents[1]


def settings(output: Path, **changes: Any) -> Settings:
    """Every method on a few examples."""
    return replace(
        Settings(
            name="laptop-sample",
            output=str(output),
            data=DataSettings(name="laptop-sample", tests=["restaurant-sample"], limit_train=60, limit_test=20),
            model=ModelSettings(name="reviewlm", device="cpu"),
            trace=TraceSettings(examples=4, samples=1, filter=False, roles=[Role.aspect, Role.last]),
            method={
                "zero_shot": ZeroShot(),
                "edit": Edit(lr=2e-3),
                "random": Edit(lr=2e-3, locate="random"),
                "delta": Delta(lr=2e-4),
                "lora": Lora(lr=1e-3),
                "full": Full(lr=2e-4),
            },
            fit=FitSettings(epochs=1),
            score=ScoreSettings(resamples=100, general_examples=20, neutral_words=300),
            track=TrackSettings(kind=Tracker.none),
        ),
        **changes,
    )


def execute(chosen: Settings) -> tuple[Context, RunRecord, str]:
    run = prepare(chosen, root=ROOT)
    console = Console(file=StringIO(), width=120)
    record = pipeline.execute(run, console=console, root=ROOT, command="python train.py +experiment=x")
    return run, record, console.file.getvalue()  # type: ignore[attr-defined]


def small_run(output: Path, **changes: Any) -> Settings:
    """One edit of chosen layers, no trace."""
    chosen: dict[str, Any] = {
        "locate": LocateSettings(kind="manual", layers=[4, 5]),
        "method": {"edit": Edit(lr=2e-3)},
        "stages": [Stage.locate, Stage.methods, Stage.export],
        "data": DataSettings(name="laptop-sample", limit_train=30, limit_test=8),
    }
    return settings(output, **chosen | changes)
