"""Load what a run exported and ask it about sentences."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from safetensors import SafetensorError

from absa_edit.data.assemble import occurrences
from absa_edit.data.prompts import Labels, content_free, encode, label_ids
from absa_edit.data.settings import PromptSettings
from absa_edit.errors import DataError, ModelError, RecordError, SettingsError
from absa_edit.evaluation.calibration import with_temperature
from absa_edit.evaluation.predict import log_probabilities
from absa_edit.evaluation.scoring import score
from absa_edit.export.folder import (
    ABOUT,
    ADAPTER,
    REPRESENTATION,
    Description,
    describe,
    read_representation,
    write_adapter,
    write_merged,
)
from absa_edit.export.model_card import plain_card
from absa_edit.export.remade import remade
from absa_edit.methods.adapted_model import AdaptedModel
from absa_edit.methods.peft_adapter import load_adapter
from absa_edit.model.loading import LanguageModel, choose_device, load_model
from absa_edit.model.settings import ModelSettings
from absa_edit.progress import Progress, silent
from absa_edit.records import Dataset, Example
from absa_edit.results import Prediction, Score
from absa_edit.storage import load as load_record
from absa_edit.tasks.base import Task

log = logging.getLogger("absa_edit")

ON_CPU, ON_GPU = 512, 16384
"""Tokens in a batch: few on a CPU, where the states then stay in the cache."""


@dataclass(frozen=True)
class Classifier:
    """An adapted model with its tokenizer and prompt."""

    lm: LanguageModel
    adapted: AdaptedModel
    prompt: PromptSettings
    """With template and words."""
    task: Task
    temperature: float | None = None
    """Fitted on development data after training; answers are divided by it where that is asked for."""

    @property
    def labels(self) -> Labels:
        """The tokens of each label's word."""
        return label_ids(self.lm.tokenizer, self.prompt, self.task.labels)

    def predict(
        self,
        sentences: Sequence[str],
        aspects: Sequence[str] | None = None,
        *,
        fitted_temperature: bool = False,
        batch_tokens: int | None = None,
        progress: Progress = silent,
    ) -> list[dict[str, float]]:
        """Probabilities of the task's labels for each pair; they sum to 1. A task about sentences takes no aspects.

        With `fitted_temperature` the probabilities are those that fit development data best: which label is likeliest
        stays as it is, how sure that is does not. Raises `SettingsError` where no temperature was fitted.
        `batch_tokens` bounds a batch, padding counted; by itself small enough for a CPU's cache, large for a GPU.
        An aspect is taken where the readers would take it: its first occurrence as a word, else as a part of one, else
        in any case; one that is not in the sentence is a `DataError`.
        """
        if (aspects is None) == self.task.asks_aspect:
            wanted = "sentences and aspects" if self.task.asks_aspect else "sentences alone"
            raise DataError(f"predict: this model is asked about {wanted}; give these")
        if aspects is None:
            examples = [Example(str(i), str(i), text, "", 0, 0, "", "") for i, text in enumerate(sentences)]
            return self.answer(examples, fitted_temperature, batch_tokens=batch_tokens, progress=progress)
        if isinstance(sentences, str) or isinstance(aspects, str):
            raise DataError("predict: expected two lists, of sentences and of aspects; put single ones in brackets")
        if len(sentences) != len(aspects):
            raise DataError(
                f"predict: {len(sentences)} sentences and {len(aspects)} aspects; each needs one of its own"
            )
        pairs = zip(sentences, aspects, strict=True)
        examples = [example(sentence, aspect, str(i)) for i, (sentence, aspect) in enumerate(pairs)]
        return self.answer(examples, fitted_temperature, batch_tokens=batch_tokens, progress=progress)

    def answer(
        self,
        examples: Sequence[Example],
        fitted_temperature: bool = False,
        *,
        batch_tokens: int | None = None,
        progress: Progress = silent,
    ) -> list[dict[str, float]]:
        """As `predict`, for aspects whose place in the sentence is known; the examples' labels are not read."""
        if fitted_temperature and self.temperature is None:
            raise SettingsError(
                "fitted_temperature: this export has none; train it again with score.calibration=true, or leave it out"
            )
        scores = self.log_probabilities(examples, batch_tokens=batch_tokens, progress=progress)
        if fitted_temperature and self.temperature is not None:
            scores = with_temperature(scores, self.temperature)
        return [{label: float(v) for label, v in zip(self.task.labels, row, strict=True)} for row in np.exp(scores)]

    def log_probabilities(
        self, examples: Sequence[Example], *, batch_tokens: int | None = None, progress: Progress = silent
    ) -> Float[np.ndarray, "example label"]:
        """The logarithms of what `answer` gives without a temperature."""
        if batch_tokens is not None and batch_tokens < 1:
            raise SettingsError(f"batch_tokens={batch_tokens}: expected at least 1")
        most = batch_tokens or (ON_CPU if self.lm.model.device.type == "cpu" else ON_GPU)
        prompts = encode(examples, self.lm.tokenizer, self.prompt)
        return log_probabilities(
            self.adapted, prompts, self.labels, batch_tokens=most, progress=progress, name="predict"
        )

    def score(self, data: Dataset, *, fitted_temperature: bool = False, draws: int = 2000, seed: int = 0) -> Score:
        """Accuracy, macro-F1 and log-loss on a data set, with intervals by bootstrap over sentences."""
        answers = self.answer(data.examples, fitted_temperature)
        rows = [
            Prediction(
                self.adapted.kind,
                data.name,
                e.id,
                e.sentence_id,
                e.text,
                e.aspect,
                e.label,
                max(p, key=p.__getitem__),
                p,
            )
            for e, p in zip(data.examples, answers, strict=True)
        ]
        return score(rows, draws=draws, rng=np.random.default_rng(seed))

    def save(self, folder: str | Path) -> None:
        """Write what was trained, for `absa_edit.load`: an adapter, or where there is none the whole model.

        An earlier export in `folder` is replaced. Raises `RecordError` when other files lie there.
        """
        path = Path(folder).resolve()
        if path.exists() and not (path / ABOUT).exists() and (path.is_file() or any(path.iterdir())):
            raise RecordError(f"{folder}: there are other files; expected a new folder, an empty one or an export")
        about = describe(self.adapted, self.lm.settings(), self.lm.sha256, self.prompt, self.task)
        about = replace(about, temperature=self.temperature)
        if self.adapted.has_adapter:
            write_adapter(self.adapted, path, about, plain_card(about, self.lm.name, rank=self.adapted.rank))
        else:
            write_merged(self.adapted, self.lm.tokenizer, path, about, plain_card(about, self.lm.name, merged=True))


def load(folder: str | Path, *, device: str = "auto", base: str | None = None) -> Classifier:
    """The classifier in a run folder, an exported adapter or a merged checkpoint.

    `base` replaces the base model that an adapter names. Raises `RecordError` for a folder without an export, or a base
    model with other weights than the one that the adapter was trained on; `ModelError` where there is none.
    """
    choose_device(device)  # its error is not about the base model
    path = _exported(Path(folder))
    about = load_record(Description, path / ABOUT)
    if (path / "config.json").exists():
        if base is not None:
            raise SettingsError(f"base={base}: {path} is a whole model, which stands on no other; leave base away")
        lm = load_model(ModelSettings(name=str(path), device=device, dtype=about.dtype))
        nothing = content_free(lm.tokenizer, about.prompt) if about.calibrated else ()
        adapted = AdaptedModel(about.kind, lm.model, content_free=nothing)
        return Classifier(lm, adapted, about.prompt, about.task(), about.temperature)
    _check_whole(path, about)
    lm = _base(path, about, base or about.base, about.revision if base is None else None, device)
    try:
        adapted = _adapted(path, about, lm)
    except torch.OutOfMemoryError:
        raise
    except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
        message = str(error).strip().splitlines()[0]
        raise RecordError(
            f"{path}: its weights cannot be read, or do not fit this base model ({message}); copy it or export it again"
        ) from error
    return Classifier(replace(lm, model=adapted.model), adapted, about.prompt, about.task(), about.temperature)


def _adapted(path: Path, about: Description, lm: LanguageModel) -> AdaptedModel:
    """The export in `path`, inside `lm` or a copy of it."""
    if about.settings is not None:
        return remade(path, lm)
    peft = load_adapter(lm.model, path) if (path / ADAPTER).exists() else None
    return AdaptedModel(about.kind, lm.model, peft, read_representation(path, about, lm.model))


def _check_whole(path: Path, about: Description) -> None:
    """Without its weights an adapter would answer as the base model does. Raises `RecordError`."""
    missing = [name for name in about.files if not (path / name).exists()]
    if not about.files and not any((path / name).exists() for name in (ADAPTER, REPRESENTATION)):
        missing = [f"config.json, {ADAPTER} or {REPRESENTATION}"]
    if missing:
        raise RecordError(f"{path}: no {missing[0]} in it; copy the whole folder, or export it again")


def _exported(folder: Path) -> Path:
    for candidate in (folder, folder / "export" / "adapter", folder / "export" / "merged"):
        if (candidate / ABOUT).exists():
            return candidate
    raise RecordError(
        f"{folder}: no export in it; expected a run folder with export/adapter or export/merged, or one of these"
    )


def _base(path: Path, about: Description, name: str, revision: str | None, device: str) -> LanguageModel:
    """The base model of the adapter in `path`, with the weights that it was trained on."""
    try:
        lm = load_model(ModelSettings(name=name, revision=revision, device=device, dtype=about.dtype))
    except ModelError as error:
        raise ModelError(
            f"{path}: the base model of this adapter is not at {name}; say where it is with base=<folder or hub id> "
            f"(--base on the command line). {error}"
        ) from error
    if lm.sha256 == about.base_sha256:
        return lm
    if len(lm.sha256) == len(about.base_sha256):
        raise RecordError(
            f"{path}: this adapter was trained on the weights {about.base_sha256[:12]} (SHA-256 or commit), and {name} "
            f"has {lm.sha256[:12]}: it would answer wrongly there. Give the base model that it was trained on "
            f"({about.base}) with base=<folder or hub id> (--base on the command line)"
        )
    log.warning("%s: a folder and a hub commit cannot be compared: make sure that %s is %s", path, name, about.base)
    return lm


def example(sentence: str, aspect: str, name: str, label: str = "") -> Example:
    """The question about `aspect`, whose label means nothing. Raises `DataError` for one not in the sentence."""
    spans = occurrences(sentence, aspect) if aspect.strip() else []
    if not spans:
        raise DataError(
            f"aspect {aspect!r} does not stand in the sentence {sentence!r}; give it as it is written there"
        )
    start, end = spans[0]
    return Example(name, name, sentence, sentence[start:end], start, end, label, "")
