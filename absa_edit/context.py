"""One run: its settings, data, model and folder, and how results are kept there and found again."""

from __future__ import annotations

import copy
import logging
import os
import subprocess
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from absa_edit import __version__
from absa_edit.data.prompts import Labels, Prompt, encode, label_ids
from absa_edit.data.sources import Splits, load_splits
from absa_edit.errors import ModelError, RecordError, SettingsError
from absa_edit.model.loading import LanguageModel, load_model
from absa_edit.model.precision import of_trace, of_training
from absa_edit.pipeline.run_folder import experiment_name, run_folder
from absa_edit.progress import Progress, silent
from absa_edit.records import Dataset, Example, Trace
from absa_edit.results import RunRecord
from absa_edit.settings import NO_RESULT, Settings, Stage
from absa_edit.storage import ENGINE, content_hash, load, load_trace
from absa_edit.tasks.absc import ABSC
from absa_edit.tasks.base import Task, task_of

log = logging.getLogger("absa_edit")


@dataclass(frozen=True)
class Context:
    """What stages and plug-ins are given; `prepare` makes one of settings, `absa_edit.api` one without folders."""

    settings: Settings
    lm: LanguageModel
    task: Task
    splits: Splits
    experiment: str = ""
    """Name in the path: the settings' name, with the data called what it is."""
    folder: Path = Path()
    """Where the run's results go."""
    progress: Progress = silent
    trace: Trace | None = None
    """Of the base model, where it was traced."""

    @classmethod
    def of(cls, lm: LanguageModel, task: Task = ABSC, train: Sequence[Example] = (), **settings: Any) -> Context:
        """One without folders, for a loaded model; `settings` are groups of `Settings`, or its seed."""
        whole = Settings("python", **{"stages": [Stage.methods], "prompt": task.prompt(), **settings})
        data = Dataset("python", "train", "python", tuple(train), {}, task.labels)
        return cls(whole, lm, task, Splits(data, replace(data, split="dev", examples=()), (), ()))

    @cached_property
    def labels(self) -> Labels:
        """The tokens of each label's word. Raises `ModelError` where they cannot be told apart."""
        return label_ids(self.lm.tokenizer, self.settings.prompt, self.task.labels)

    def copy_of_model(self) -> PreTrainedModel:
        """A copy of the base model in which nothing trains yet."""
        return copy.deepcopy(self.lm.model).requires_grad_(False)

    def rng(self, use: str) -> np.random.Generator:
        """A generator of its own for each use, so that one more draw here moves none there."""
        return np.random.default_rng([self.settings.seed, zlib.crc32(use.encode())])

    def encode(self, data: Dataset) -> list[Prompt]:
        """The prompts of a split."""
        tokenizer: PreTrainedTokenizerBase = self.lm.tokenizer
        return encode(data.examples, tokenizer, self.settings.prompt)

    def prompts_to_trace(self) -> list[Prompt]:
        """The seeded draw of training examples that a trace looks at."""
        examples = self.splits.train.examples
        chosen = self.rng("trace examples").permutation(len(examples))[: self.settings.trace.examples]
        return self.encode(replace(self.splits.train, examples=tuple(examples[i] for i in sorted(chosen))))

    def key(self, *parts: object) -> str:
        """A hash of `parts` and of what every result depends on: engine, model, task, data, prompt, seed."""
        model = {k: v for k, v in asdict(self.settings.model).items() if k not in ("device", "device_map")}
        data = [[e.id for e in split.examples] for split in (self.splits.train, self.splits.dev)]
        data.append(sorted(self.splits.train.sha256.values()))
        lm = self.lm.sha256, self.lm.files_sha256, model
        own = [Path(file).read_text(encoding="utf-8") for file in self.settings.plugins]
        return content_hash(
            ENGINE, *own, *lm, *data, self.task.labels, self.settings.prompt, self.settings.seed, *parts
        )

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
    ctx = Context(settings, lm, task, splits, experiment, folder, progress)
    _check_first_words(ctx)
    return ctx


def _check_first_words(ctx: Context) -> None:
    """Tell of label words that begin with the same token. Raises `ModelError` where a trace, which reads it, is due."""
    first: dict[int, str] = {}
    for label, ids in ctx.labels.items():
        if (other := first.setdefault(ids[0], label)) != label:
            told = (
                f"the words of the labels {other} and {label} begin with the same token, all that a trace reads of "
                "them; choose other words (prompt.labels)"
            )
            if Stage.trace in ctx.settings.stages:
                raise ModelError(told)
            log.warning(told)


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
