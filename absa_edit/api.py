"""The stages from Python, without folders and Hydra:

    model = Model("reviewlm")
    trace = model.trace(data.train)      # Trace
    plan = model.plan(trace)             # EditPlan
    classifier = model.edit(plan, data)  # Classifier

The functions, settings, draws and records are those of `absa-edit train`.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Int
from pydantic import TypeAdapter, ValidationError

from absa_edit.context import Context
from absa_edit.data.settings import DataSettings, PromptSettings
from absa_edit.data.sources import Splits, load_splits
from absa_edit.errors import DataError, SettingsError
from absa_edit.evaluation.calibration import fit_temperature
from absa_edit.evaluation.scoring import development_scores
from absa_edit.inference import classifier as classifiers
from absa_edit.inference.classifier import Classifier
from absa_edit.localizers.base import locate
from absa_edit.localizers.plan import checked
from absa_edit.localizers.settings import LOCALIZERS, LocateSettings
from absa_edit.methods.base import adapt, method_of
from absa_edit.methods.low_rank_edit import Edit
from absa_edit.methods.settings import MethodSettings
from absa_edit.model.loading import load_model
from absa_edit.model.settings import ModelSettings
from absa_edit.progress import Progress, silent
from absa_edit.records import Dataset, EditPlan, Example, Trace
from absa_edit.resampling import label_numbers
from absa_edit.tasks.base import TASKS, Task, task_of
from absa_edit.tasks.settings import TaskSettings
from absa_edit.tracing.settings import TracedModel, TraceSettings
from absa_edit.tracing.trace import trace
from absa_edit.training.fitting import fit_method
from absa_edit.training.settings import FitSettings

S = TypeVar("S")


def read(name: str, *, task: str | Task = "absc", **settings: Any) -> Splits:
    """The training, development and test data that `data.*` settings name, e.g. `read("laptop14", limit_train=500)`.

    Warns where it is not what was asked for: the bundled sample instead of a public set, or a test set less.
    """
    chosen = _settings(DataSettings, {"name": name, **settings})
    splits = load_splits(chosen, task if isinstance(task, Task) else TASKS[task], root=Path.cwd(), environ=os.environ)
    for notice in splits.notices:
        warnings.warn(notice, stacklevel=2)
    return splits


def example(sentence: str, aspect: str, label: str, *, task: str = "absc") -> Example:
    """An example of your own; of a task about sentences the aspect is "".

    Raises `DataError` when the aspect does not stand in the sentence, or for no label of the task.
    """
    known = TASKS[task]
    if label not in known.labels:
        raise DataError(f"label {label!r}: expected {', '.join(known.labels[:-1])} or {known.labels[-1]}")
    if not known.asks_aspect:
        return Example(sentence, sentence, sentence, "", 0, 0, label, "")
    located_example = classifiers.example(sentence, aspect, f"{sentence}/{aspect}", label)
    return replace(located_example, sentence_id=sentence)  # intervals resample sentences, each with all its aspects


class Model:
    """A language model that can be traced and edited; nothing changes the model itself."""

    def __init__(
        self,
        name: str = "reviewlm",
        *,
        task: str | Task = "absc",
        prompt: PromptSettings | None = None,
        **settings: Any,
    ) -> None:
        """`name` is reviewlm, a hub id or a folder; `settings` are those of `model.*`, e.g. `device="cuda"`."""
        prompt = prompt or PromptSettings()
        if prompt.shots and not prompt.preamble:
            raise SettingsError(
                "prompt.shots: a run draws them from its training data, and here is none yet; give their text as "
                "prompt.preamble, or edit(None, data, method=FewShot())"
            )
        self.task = task if isinstance(task, Task) else task_of(TaskSettings(task), prompt)
        self.lm = load_model(_settings(ModelSettings, {"name": name, **settings}))
        self.prompt = self.task.prompt(prompt)
        self.labels = self._context(0).labels

    def _context(self, seed: int, train: Sequence[Example] = (), **settings: Any) -> Context:
        """What the run's own functions are given; `settings` are groups of `Settings`."""
        return Context.of(self.lm, self.task, train, seed=seed, prompt=self.prompt, **settings)

    def trace(
        self, data: Dataset | Sequence[Example], *, seed: int = 0, progress: Progress = silent, **settings: Any
    ) -> Trace:
        """Where the answers are decided: of a data set `examples` drawn ones are traced, of a list all.

        `settings` are those of `trace.*`, e.g. `engine="attribution"`. How far to trust such estimates is told
        by `absa_edit.tracing.fidelity.agreement`, given an exact trace of the same examples in the same order.
        """
        chosen = _settings(TraceSettings, settings)
        if chosen.model is not TracedModel.base or chosen.again:
            raise SettingsError(
                f"trace.model={chosen.model}, trace.again={chosen.again}: for runs; here the model that was loaded is "
                "traced. For an adapted one load a merged checkpoint: Model('<run folder>/export/merged')"
            )
        ctx = self._context(seed, data.examples if isinstance(data, Dataset) else data, trace=chosen)
        prompts = ctx.prompts_to_trace() if isinstance(data, Dataset) else ctx.encode(ctx.splits.train)
        return trace(self.lm, prompts, self.labels, chosen, self.prompt, seed=seed, progress=progress)

    def plan(
        self, trace: Trace | None = None, *, data: Splits | None = None, seed: int = 0, **settings: Any
    ) -> EditPlan:
        """Where to edit; `settings` are those of `locate.*`; `kind="manual", layers=[4, 5]` needs no trace.

        Some localizers (`kind="gradient"`) look at examples of `data`.
        """
        kind = settings.get("kind", LocateSettings.kind)
        chosen: LocateSettings = _settings(LOCALIZERS[kind].settings, settings)
        ctx = replace(self._context(seed, locate=chosen), trace=trace)
        if data is not None:
            ctx = replace(ctx, splits=data)
        return locate(ctx, chosen, ctx.rng("locate"))

    def edit(
        self,
        plan: EditPlan | None,
        data: Splits,
        *,
        method: MethodSettings | None = None,
        fit: FitSettings | None = None,
        seed: int = 0,
        progress: Progress = silent,
    ) -> Classifier:
        """A classifier trained on `data.train` at the plan's sites, its best epoch by `data.dev`.

        `method` are settings of any method, e.g. `Lora()`, which needs no plan; by itself `Edit()`. One that trains
        nothing (`FewShot()`) answers at once.
        """
        if plan is not None:
            checked(plan, self.lm.runner)
        ctx = replace(self._context(seed, fit=fit or FitSettings()), splits=data, progress=progress)
        settings = method or Edit()
        adapted, kind = adapt(ctx, settings, plan), method_of(settings)
        trained = Classifier(self.lm, adapted, kind.prompt(ctx, settings) or self.prompt, self.task)
        gold = label_numbers([e.label for e in data.dev.examples], self.task.labels)
        if not kind.trains:
            return _with_temperature(trained, data.dev, gold)

        def evaluate() -> dict[str, float]:
            return development_scores(trained.log_probabilities(data.dev.examples), gold)

        fit_method(ctx, settings, adapted, evaluate)
        return _with_temperature(trained, data.dev, gold)


def _with_temperature(classifier: Classifier, dev: Dataset, gold: Int[np.ndarray, " example"]) -> Classifier:
    """The classifier with the temperature that fits development data; without one where these do not determine it."""
    if not dev.examples:
        return classifier
    fitted = fit_temperature(classifier.log_probabilities(dev.examples), gold)
    return replace(classifier, temperature=fitted.value) if fitted else classifier


def _settings(kind: type[S], values: dict[str, Any]) -> S:
    """Settings of a kind, words made enums. Raises `SettingsError` naming what is unknown or wrong."""
    unknown = sorted(set(values) - set(kind.__dataclass_fields__))  # type: ignore[attr-defined]
    if unknown:
        known = ", ".join(kind.__dataclass_fields__)  # type: ignore[attr-defined]
        raise SettingsError(f"{unknown[0]}: no such setting of {kind.__name__}; there are {known}")
    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        raise SettingsError(f"{'.'.join(map(str, first['loc']))}={first['input']!r}: {first['msg']}") from None
