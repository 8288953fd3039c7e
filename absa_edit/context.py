"""What stages and plug-ins are given: the settings, data and model of a run, its random streams and its keys."""

from __future__ import annotations

import copy
import logging
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from absa_edit.data.prompts import Labels, Prompt, encode, label_ids
from absa_edit.data.settings import PromptSettings
from absa_edit.data.shots import draw_shots, preamble_of
from absa_edit.data.sources import Splits
from absa_edit.errors import ModelError
from absa_edit.model.loading import LanguageModel
from absa_edit.progress import Progress, silent
from absa_edit.records import Dataset, Example, Trace
from absa_edit.settings import NO_RESULT, Settings, Stage
from absa_edit.storage import ENGINE, ESTIMATES, content_hash, load_kept, save_kept
from absa_edit.tasks.absc import ABSC
from absa_edit.tasks.base import Task
from absa_edit.tracing.settings import AdaptSettings, TracedModel

log = logging.getLogger("absa_edit")

R = TypeVar("R")


@dataclass(frozen=True)
class Context:
    """What stages and plug-ins are given; `pipeline.prepare` makes one of settings, `api` one without folders."""

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
    """Of the base model or an adapted one, where it was traced."""
    traced_as: str | None = None
    """The key of that trace."""

    @classmethod
    def of(cls, lm: LanguageModel, task: Task = ABSC, train: Sequence[Example] = (), **settings: Any) -> Context:
        """One without folders, for a loaded model; `settings` are groups of `Settings`, or its seed."""
        run_settings = Settings("python", **{"stages": [Stage.methods], "prompt": task.prompt(), **settings})
        data = Dataset("python", "train", "python", tuple(train), {}, task.labels)
        return cls(run_settings, lm, task, Splits(data, replace(data, split="dev", examples=()), (), ()))

    @cached_property
    def labels(self) -> Labels:
        """The tokens of each label's word. Raises `ModelError` where one begins another."""
        return label_ids(self.lm.tokenizer, self.settings.prompt, self.task.labels)

    def answers_to_learn(self) -> Labels:
        """What training teaches: each label's word and, with `fit.end`, the end token after it.

        Raises `ModelError` for a tokenizer without one.
        """
        if not self.settings.fit.end:
            return self.labels
        end = self.lm.tokenizer.eos_token_id
        if end is None:
            raise ModelError("fit.end=true, but the tokenizer has no end token; use fit.end=false")
        return {label: (*word, end) for label, word in self.labels.items()}

    def copy_of_model(self) -> PreTrainedModel:
        """A copy of the base model in which nothing trains yet."""
        return copy.deepcopy(self.lm.model).requires_grad_(False)

    def rng(self, use: str) -> np.random.Generator:
        """A separate generator for each use, so that one more draw here moves none there."""
        return np.random.default_rng([self.settings.seed, zlib.crc32(use.encode())])

    def encode(self, data: Dataset, prompt: PromptSettings | None = None) -> list[Prompt]:
        """The prompts of a split; by itself as the run asks."""
        tokenizer: PreTrainedTokenizerBase = self.lm.tokenizer
        return encode(data.examples, tokenizer, prompt or self.settings.prompt)

    def shots(self, count: int) -> tuple[Example, ...]:
        """The seeded draw of training examples that are shown with their answers."""
        return draw_shots(self.splits.train.examples, self.task.labels, count, self.rng("shots"))

    def prompt_with(self, shots: int) -> PromptSettings:
        """The run's prompt with so many drawn examples before it, in place of any that it has."""
        plain = self.settings.prompt
        return replace(plain, shots=shots, preamble=preamble_of(self.shots(shots), self.task.labels, plain))

    def prompts_to_trace(self) -> list[Prompt]:
        """The seeded draw of training examples that a trace looks at; no sentence of a shot is among them."""
        return self.drawn_prompts(self.settings.trace.examples)

    def drawn_prompts(self, count: int) -> list[Prompt]:
        """A seeded draw of so many training examples, a larger one with all of a smaller one."""
        shown = {shot.sentence_id for shot in self.shots(self.settings.prompt.shots)}
        examples = [e for e in self.splits.train.examples if e.sentence_id not in shown]
        chosen = self.rng("trace examples").permutation(len(examples))[:count]
        return self.encode(replace(self.splits.train, examples=tuple(examples[i] for i in sorted(chosen))))

    def key(self, *parts: object) -> str:
        """A hash of `parts` and of what every result depends on: engine, model, task, data, prompt, seed."""
        model = {k: v for k, v in asdict(self.settings.model).items() if k not in ("device", "device_map")}
        data = [[e.id for e in split.examples] for split in (self.splits.train, self.splits.dev)]
        data.append(sorted(self.splits.train.sha256.values()))
        lm = self.lm.sha256, self.lm.files_sha256, model
        plugins = [Path(file).read_text(encoding="utf-8") for file in self.settings.plugins]
        prompt = replace(self.settings.prompt, max_tokens=1)  # a longer one is an error, and changes no result
        task_and_seed = self.task.labels, prompt, self.settings.seed
        return content_hash(ENGINE, *plugins, *lm, *data, *task_and_seed, *parts)

    def kept(self, kind: type[R], name: str, key: str, make: Callable[[], R]) -> R:
        """What `make` gives, a record of type `kind`: kept in the run's folder, where there is one, and found there."""
        if self.folder == Path():
            return make()
        path = self.folder / name
        record = load_kept(kind, path, key)
        if record is None:
            record = make()
            save_kept(record, path, key)
        return record

    def trace_key(self) -> str:
        """Of a trace of `lm`: all its settings that change it."""
        settings = replace(self.settings.trace, grids=0, checked=1, batch_tokens=1)
        settings = replace(settings, model=TracedModel.base, adapt=AdaptSettings(), again=False)  # `lm` says it
        return self.key("trace", settings, *[ESTIMATES] * settings.estimated)

    def config_hash(self) -> str:
        """A hash of all settings that can change a result, but for the seed: equal for runs to average over."""
        plain = asdict(self.settings)
        if self.settings.prompt.shots:
            del plain["prompt"]["preamble"]  # drawn by the seed
        for key in ("seed", "output", "stages", "track", "export"):
            del plain[key]
        for name in NO_RESULT:
            group, key = name.split(".")
            del plain[group][key]
        return content_hash(plain)
