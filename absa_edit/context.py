"""One run: its settings, data, model and folder, and how results are kept there and found again."""

from __future__ import annotations

import os
import subprocess
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerBase

from absa_edit import __version__
from absa_edit.data.prompts import Labels, Prompt, encode, label_ids
from absa_edit.data.sources import Splits, load_splits
from absa_edit.errors import RecordError, SettingsError
from absa_edit.model.loading import LanguageModel, load_model
from absa_edit.model.precision import of_trace, of_training
from absa_edit.pipeline.run_folder import experiment_name, run_folder
from absa_edit.progress import Progress, silent
from absa_edit.records import Dataset
from absa_edit.results import RunRecord
from absa_edit.settings import NO_RESULT, Settings, Stage
from absa_edit.storage import content_hash, load, load_trace
from absa_edit.tasks.base import Task, task_of


@dataclass(frozen=True)
class Context:
    """Everything the stages need; made by `prepare`."""

    settings: Settings
    experiment: str
    """Name in the path: the settings' name, with the data called what it is."""
    folder: Path
    splits: Splits
    lm: LanguageModel
    task: Task
    labels: Labels
    progress: Progress

    def rng(self, use: str) -> np.random.Generator:
        """A generator of its own for each use, so that one more draw here moves none there."""
        return np.random.default_rng([self.settings.seed, zlib.crc32(use.encode())])

    def encode(self, data: Dataset) -> list[Prompt]:
        """The prompts of a split."""
        tokenizer: PreTrainedTokenizerBase = self.lm.tokenizer
        return encode(data.examples, tokenizer, self.settings.prompt)

    def key(self, *parts: object) -> str:
        """A hash of `parts` and of what every result depends on: version, model, data, prompt, seed."""
        model = {k: v for k, v in asdict(self.settings.model).items() if k not in ("device", "device_map")}
        data = [[e.id for e in split.examples] for split in (self.splits.train, self.splits.dev)]
        data.append(sorted(self.splits.train.sha256.values()))
        lm = self.lm.sha256, self.lm.files_sha256, model
        return content_hash(__version__, *lm, *data, self.settings.prompt, self.settings.seed, *parts)

    def trace_key(self) -> str:
        """Of the trace: all its settings that change it."""
        return self.key("trace", replace(self.settings.trace, grids=0, checked=1, batch_tokens=1))

    def make_way(self) -> None:
        """Remove a `results.json` of other settings, which would stand beside this run's until that is done.

        Raises `SettingsError` when there is one of the same settings that tells more than this run's stages will.
        """
        path = self.folder / "results.json"
        if not path.exists():
            return
        try:
            kept = load(RunRecord, path)
        except RecordError:  # cut, or of another version
            return path.unlink()
        if kept.config_hash != self.config_hash():
            return path.unlink()
        lost_trace = kept.trace and not load_trace(self.folder / "trace", self.trace_key())
        told = {
            Stage.trace: lost_trace,
            Stage.locate: kept.plan,
            Stage.methods: kept.methods,
            Stage.export: kept.export,
        }
        lost = [stage.value for stage, result in told.items() if result and stage not in self.settings.stages]
        if lost:
            raise SettingsError(
                f"stages: {path} already tells what came of {', '.join(lost)}: add them to stages, or give another "
                "output (what was done with these settings, data and version is found, not done again)"
            )

    def config_hash(self) -> str:
        """A hash of all settings that can change a result, but for the seed: equal for runs to average over."""
        plain = asdict(self.settings)
        for key in ("seed", "output", "stages", "track", "export"):
            del plain[key]
        for name in NO_RESULT:
            group, key = name.split(".")
            del plain[group][key]
        return content_hash(plain)


def prepare(
    settings: Settings,
    *,
    overrides: Sequence[str] = (),
    root: Path,
    progress: Progress = silent,
) -> Context:
    """Data and model loaded and checked against each other, and the folder that the run goes to.

    `root` is where `data/` is looked for; `overrides` are the command line's, and name the folder of a variant.
    """
    task = task_of(settings.task, settings.prompt)
    settings = replace(settings, prompt=task.prompt(settings.prompt))
    splits = load_splits(settings.data, task, root=root, environ=os.environ)
    lm = load_model(settings.model)
    fit = replace(settings.fit, precision=of_training(settings.fit.precision, lm.model))
    trace = replace(
        settings.trace,
        dtype=of_trace(settings.trace.dtype, lm.model, estimated=settings.trace.estimated),
    )
    settings = replace(settings, fit=fit, trace=trace)  # what results depend on is known from here on
    experiment = experiment_name(settings, splits.train.name, overrides)
    folder = run_folder(settings, experiment, lm.name)
    labels = label_ids(lm.tokenizer, settings.prompt, task.labels)
    return Context(settings, experiment, folder, splits, lm, task, labels, progress)


def versions() -> dict[str, str]:
    """Versions of the packages that results depend on."""
    names = ("torch", "transformers", "peft", "accelerate", "tokenizers", "numpy")
    return {"absa_edit": __version__, **{name: version(name) for name in names}}


def git_commit(clone: Path | None) -> str | None:
    """The commit of the clone that the package is run from, `-dirty` if it has changes; None outside one."""
    if clone is None:
        return None
    command = ["git", "-C", str(clone), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
