"""Load what a run exported and ask it about sentences."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from peft import PeftModel
from pydantic import TypeAdapter
from safetensors.torch import load_file
from transformers import PreTrainedModel

from absa_edit.adapt import Adapted
from absa_edit.adapt.representation import RepresentationEdit
from absa_edit.config import ModelSettings, PromptSettings
from absa_edit.data.prompts import encode, label_ids
from absa_edit.data.rows import occurrences
from absa_edit.errors import DataError, RecordError
from absa_edit.evaluate.predict import log_probabilities
from absa_edit.export.folder import ABOUT
from absa_edit.lm.decoder import Decoder
from absa_edit.lm.load import LanguageModel, load_model
from absa_edit.progress import Progress, silent
from absa_edit.records import POLARITIES, Example, Polarity, Role


@dataclass(frozen=True)
class Classifier:
    """An adapted model with its tokenizer and prompt."""

    lm: LanguageModel
    adapted: Adapted
    prompt: PromptSettings

    def predict(
        self,
        sentences: Sequence[str],
        aspects: Sequence[str],
        *,
        batch_tokens: int = 4096,
        progress: Progress = silent,
    ) -> list[dict[str, float]]:
        """Probabilities of positive, negative and neutral for each pair; they sum to 1.

        An aspect is taken where the readers would take it: its first occurrence as a word, else as a part of one, else
        in any case; one that is not in the sentence is a `DataError`.
        """
        pairs = zip(sentences, aspects, strict=True)
        examples = [_example(i, sentence, aspect) for i, (sentence, aspect) in enumerate(pairs)]
        prompts = encode(examples, self.lm.tokenizer, self.prompt)
        labels = label_ids(self.lm.tokenizer, self.prompt)
        scores = log_probabilities(
            self.adapted, prompts, labels, batch_tokens=batch_tokens, progress=progress, name="predict"
        )
        return [{p.value: float(v) for p, v in zip(POLARITIES, row, strict=True)} for row in np.exp(scores)]


def load(folder: str | Path, *, device: str = "auto", base: str | None = None) -> Classifier:
    """The classifier in a run folder, an exported adapter or a merged checkpoint.

    `base` replaces the base model that an adapter names. Raises `RecordError` for a folder without an export.
    """
    path = _exported(Path(folder))
    about = json.loads((path / ABOUT).read_text(encoding="utf-8"))
    prompt = TypeAdapter(PromptSettings).validate_python(about["prompt"])
    is_adapter = (path / "adapter_config.json").exists()
    name = (base or about["base"]) if is_adapter else str(path)
    settings = ModelSettings(
        name=name, revision=None if base or not is_adapter else about["revision"], device=device, dtype=about["dtype"]
    )
    lm = load_model(settings)
    model, peft = lm.model, None
    if is_adapter:
        peft = PeftModel.from_pretrained(model, path)
        peft.eval().requires_grad_(False)
    adapted = Adapted(about["kind"], model, peft, _representation(path, about, model), None, {}, 0, 0)
    return Classifier(lm, adapted, prompt)


def _exported(folder: Path) -> Path:
    for candidate in (folder, folder / "export" / "adapter", folder / "export" / "merged"):
        if (candidate / ABOUT).exists():
            return candidate
    raise RecordError(
        f"{folder}: no export in it; expected a run folder with export/adapter or export/merged, or one of these"
    )


def _representation(path: Path, about: dict, model: PreTrainedModel) -> RepresentationEdit | None:
    settings = about["representation"]
    if not settings:
        return None
    state = load_file(path / "representation.safetensors")
    edit = RepresentationEdit(
        settings["layers"], model.config.hidden_size, settings["rank"], Role(settings["position"])
    )
    with torch.no_grad():
        for layer, one in edit.by_layer().items():
            one.rotation.weight = state[f"{layer}.rotation"]
            one.source.weight.copy_(state[f"{layer}.source.weight"])
            one.source.bias.copy_(state[f"{layer}.source.bias"])
    return edit.to(Decoder(model).device).requires_grad_(False)


def _example(number: int, sentence: str, aspect: str) -> Example:
    spans = occurrences(sentence, aspect) if aspect.strip() else []
    if not spans:
        raise DataError(
            f"aspect {aspect!r} does not stand in the sentence {sentence!r}; give it as it is written there"
        )
    start, end = spans[0]
    name = str(number)
    return Example(name, name, sentence, sentence[start:end], start, end, Polarity.neutral, "")
