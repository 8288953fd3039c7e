"""The model card of an export: what was edited, on which data, with which scores, how to load it, what it cannot do."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from absa_edit.export.adapter_rules import served_rank
from absa_edit.export.folder import Description
from absa_edit.model.known import PACKAGED, is_named
from absa_edit.report.formatting import ROLES
from absa_edit.report.tables import method_table
from absa_edit.results import RunRecord
from absa_edit.table import markdown

SHOWN = {"trace.png": "Where the base model decides", "scores.png": "Macro-F1 by method and test set"}
"""Figures of a run that a card shows, with their captions."""


def adapter_card(record: RunRecord, method: str, about: Description, *, rank: int | None) -> str:
    """The README of an adapter, with metadata that the hub reads; `rank` is its largest, None without deltas."""
    return _card(record, method, about, *_adapter(about, rank))


def merged_card(record: RunRecord, method: str, about: Description) -> str:
    """The README of a merged checkpoint, with metadata that the hub reads."""
    note = "\n\nThe deltas are folded into the weights: summed in float32, rounded once."
    return _card(record, method, about, "transformers", note, _TRANSFORMERS + _VLLM_MERGED)


def add_figures(folder: Path, figures: Sequence[Path]) -> None:
    """Put the figures that a card shows into an export and show them at the end of its card."""
    card = folder / "README.md"
    lines = [card.read_text(encoding="utf-8")]
    for path in figures:
        if path.name in SHOWN:
            (folder / "figures").mkdir(exist_ok=True)
            shutil.copyfile(path, folder / "figures" / path.name)
            lines.append(f"\n![{SHOWN[path.name]}](figures/{path.name})\n")
    card.write_text("".join(lines), encoding="utf-8")


def _card(record: RunRecord, method: str, about: Description, library: str, note: str, use: str) -> str:
    row, base, asks_aspect = record.methods[method], record.model.name, about.task().asks_aspect
    data = _metadata(
        about,
        base,
        library,
        datasets=[record.data["train"].name],
        metrics=["accuracy", "f1"],
        model_name=f"{record.experiment}-{method}",
        eval_results=_results(record, method),
    )
    where = ", ".join(str(t.site) for t in row.plan.targets) if row.plan else "all layers"
    scores = "\n".join(markdown(method_table(row.scores)))
    damage = "not finite" if row.perplexity is None else f"{row.perplexity:.1f}"
    made = f" ({record.model.weights})" if record.model.weights else ""
    return f"""---
{data.to_yaml()}
---

# {record.experiment}, {method}

`{_base(about, base)}`{made} adapted with absa_edit to {_task(about)}. It answers a prompt with one of the label words.

{row.trainable:,} parameters were trained ({100 * row.share:.3f} % of the model), seed {record.seed}.{note}

Edited: {where}.

{scores}

Trained on {record.data["train"].name} ({record.data["train"].n} {_EXAMPLES[asks_aspect]}).
Perplexity on neutral text: {damage}.{_temperature(about)}

{_use(about, base, use)}
## Limits

{_LIMITS[asks_aspect]} The labels are {_listed(about.labels)}, and every answer is one of them: texts to
which none or several apply, irony and mixed feelings are beyond it. The model carries the biases of its base model and
of what it was trained on. The scores are of one seed.
"""


def _temperature(about: Description) -> str:
    if about.temperature is None:
        return ""
    return f" With `fitted_temperature=True`, label log-probabilities are divided by {about.temperature:.2f}."


def plain_card(about: Description, base: str, *, rank: int | None = None, merged: bool = False) -> str:
    """The README of what was saved from Python, where no run was recorded; `base` is the base model's short name."""
    library, note, use = ("transformers", "", _TRANSFORMERS) if merged else _adapter(about, rank)
    return f"""---
{_metadata(about, base, library).to_yaml()}
---

# {base}, {about.kind}

`{_base(about, base)}` adapted with absa_edit to {_task(about)}.
It was saved from Python, without scores.{_temperature(about)}{note}

{_use(about, base, use)}"""


def _adapter(about: Description, rank: int | None) -> tuple[str, str, str]:
    """The library that loads an adapter, what has to be known of it, and how it is used."""
    if about.settings is not None:
        note = (
            f"\n\nThe method `{about.kind}` adds parts to the model (`weights.safetensors`) that `absa_edit.load` "
            "alone puts back: with `transformers` the answers are those of the base model."
        )
        return "absa_edit", note, ""
    place = about.representation and ROLES[about.representation.position]
    if rank is None and place:
        note = f"\n\nNo weight changes: `representation.safetensors` acts at the {place}, by `absa_edit.load` alone."
        return "absa_edit", note, ""
    if place:
        note = (
            "\n\nThe folder also holds a representation edit (`representation.safetensors`), which acts at the "
            f"{place} and which only `absa_edit.load` applies: with `peft` or vLLM alone the answers are others."
        )
        return "peft", note, _PEFT
    if rank is None:  # vLLM serves LoRA alone
        return "peft", "", _PEFT
    return "peft", "", _PEFT + _VLLM_ADAPTER.replace("RANK", str(served_rank(rank)))


def _task(about: Description) -> str:
    """What the model was adapted to."""
    if about.task().asks_aspect:
        return f"classify what a sentence says of an aspect as {_listed(about.labels, 'or')}"
    return f"classify sentences as {_listed(about.labels, 'or')}"


def _listed(labels: Sequence[str], last: str = "and") -> str:
    return f"{', '.join(labels[:-1])} {last} {labels[-1]}"


def _base(about: Description, name: str) -> str:
    """The base model as a card names it: a path of this machine helps nobody else."""
    return name if Path(about.base).is_absolute() else about.base


def _metadata(about: Description, name: str, library: str, **more: Any) -> ModelCardData:
    local = Path(about.base).is_absolute()
    base = PACKAGED[about.base].upstream if about.base in PACKAGED else about.base
    return ModelCardData(
        language="en",
        library_name=library,
        pipeline_tag="text-generation",
        base_model=None if local else base,
        base_model_relation=None if local else "finetune" if library == "transformers" else "adapter",
        tags=["aspect-based-sentiment" if about.task().asks_aspect else "sentence-classification", "absa_edit"],
        **more,
    )


def _use(about: Description, name: str, use: str) -> str:
    """How to ask the model, here and with what `use` tells of."""
    base = _base(about, name)
    named = is_named(base)
    source = f'absa_edit.model_folder("{base}")' if named else f'"{base}"'
    filled = use.replace("SOURCE", source).replace("DTYPE", about.dtype)
    filled = filled.replace("IMPORT", "import absa_edit\n" if named else "")
    filled = filled.replace("BASE", f"<folder that absa_edit.model_folder({base!r}) names>" if named else base)
    turn = ", as a user turn in the chat template" if about.prompt.chat else ""
    after = ", after the text `prompt.preamble` in `absa_edit.json`" if about.prompt.preamble else ""
    words = ", ".join(f"`{about.prompt.separator}{word}`" for word in about.prompt.labels)
    return f"""## Use

The prompt is `{about.prompt.template}`{turn}{after}, the answer the likeliest of the words {words} after it.

```python
import absa_edit

absa_edit.load("this/folder").predict({_ASKED[about.task().asks_aspect]})
```
{filled}"""


def _results(record: RunRecord, method: str) -> list[EvalResult]:
    """The scores as the hub's `model-index`."""
    return [
        EvalResult(
            task_type="text-classification",
            dataset_type=test,
            dataset_name=test,
            dataset_split="test",
            metric_type=metric,
            metric_name=name,
            metric_value=round(interval.value, 4),
        )
        for test, score in record.methods[method].scores.items()
        for metric, name, interval in (
            ("accuracy", "accuracy", score.accuracy),
            ("f1", "macro-F1", score.macro_f1),
            ("log_loss", "log-loss", score.log_loss),
        )
        if interval
    ]


_ASKED = {
    True: '["The screen is lovely but the fan never stops."], ["fan"]',
    False: '["What a lovely day."]',
}
"""What `predict` is given, with and without aspects."""
_EXAMPLES = {True: "aspects", False: "sentences"}
_LIMITS = {
    True: "English reviews only.",
    False: "English only, and texts like those that it was trained on.",
}

_PEFT = """
```python
IMPORTfrom peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

base = AutoModelForCausalLM.from_pretrained(SOURCE, dtype="DTYPE")
model = PeftModel.from_pretrained(base, "this/folder")
tokenizer = AutoTokenizer.from_pretrained(SOURCE)
```
"""

_VLLM_ADAPTER = """
    vllm serve BASE --enable-lora --max-lora-rank RANK --lora-modules absa=this/folder

`absa-edit serve-check this/folder` says beforehand what vLLM would object to. On a GPU it
applies adapters in 16 bits. llama.cpp: `python convert_lora_to_gguf.py this/folder --base <folder of the base model>`.
"""

_TRANSFORMERS = """
```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("this/folder")
tokenizer = AutoTokenizer.from_pretrained("this/folder")
```
"""

_VLLM_MERGED = """
    vllm serve this/folder --dtype DTYPE

llama.cpp: `python convert_hf_to_gguf.py this/folder --outtype f32`, then quantise; check the answers again after it.
"""
