"""Write what a method trained: a PEFT adapter, a merged checkpoint, a representation edit, or parts of its own."""

from __future__ import annotations

import copy
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch.nn.functional import pad
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from absa_edit.data.settings import PromptSettings
from absa_edit.errors import CannotMerge
from absa_edit.methods.adapted_model import AdaptedModel
from absa_edit.methods.reft import Place, RepresentationEdit
from absa_edit.model.known import is_named
from absa_edit.model.settings import ModelSettings
from absa_edit.records import Role
from absa_edit.storage import to_json, write_json
from absa_edit.tasks.absc import ABSC
from absa_edit.tasks.base import Task

ABOUT = "absa_edit.json"
"""The file that tells `absa_edit.load` how to ask the model: base, prompt, labels, kind."""


ADAPTER, REPRESENTATION = "adapter_config.json", "representation.safetensors"
"""The files that tell of deltas, for peft, and that hold a representation edit."""
PARTS, PLAN = "weights.safetensors", "edit_plan.json"
"""The files that hold what a method trained that adds parts to the model, and where."""


SETS = ("target_modules", "feedforward_modules", "exclude_modules")
"""Fields of an adapter's configuration whose order means nothing."""


@dataclass(frozen=True)
class Representation:
    """The shape of a representation edit; its tensors are in a file of their own."""

    layers: tuple[int, ...]
    rank: int
    position: Role


@dataclass(frozen=True)
class Description:
    """The content of `absa_edit.json`."""

    kind: str
    base: str
    """Hub id, absolute folder, or a name that the package knows, such as `reviewlm`."""
    base_sha256: str
    """Of the base model's weight files; of a hub model, its commit."""
    revision: str | None
    dtype: str
    prompt: PromptSettings
    """With template and words."""
    representation: Representation | None
    files: tuple[str, ...] = ()
    """What an adapter's folder must hold besides; a checkpoint's is known to transformers."""
    labels: tuple[str, ...] = ABSC.labels
    """Of the task, in the order of the words in `prompt.labels`."""
    calibrated: bool = False
    """Whether what it answers to inputs that say nothing is taken off its answers."""
    temperature: float | None = None
    """What label log-probabilities are divided by where that is wanted; fitted on development data, if any."""
    settings: dict[str, Any] | None = None
    """Those of the method `kind`, where it has to make its parts of the model again; None of other methods."""

    def task(self) -> Task:
        """What the model is asked."""
        return Task(self.labels, self.prompt.template, "{aspect}" in self.prompt.template, tuple(self.prompt.labels))


def describe(
    adapted: AdaptedModel, model: ModelSettings, sha256: str, prompt: PromptSettings, task: Task
) -> Description:
    """What the export of `adapted` says of itself; `sha256` is the base model's."""
    edit = adapted.representation
    return Description(
        adapted.kind,
        base_of(model),
        sha256,
        model.revision,
        str(adapted.model.dtype).removeprefix("torch."),
        prompt,
        None if edit is None or adapted.settings else _representation(edit),
        labels=task.labels,
        calibrated=bool(adapted.content_free),
        settings=to_json(adapted.settings) if adapted.settings else None,
    )


def _representation(edit: RepresentationEdit) -> Representation:
    """The shape of an edit at one role, as all are but those of methods that make theirs again."""
    (place,) = edit.places
    assert place.role is not None
    return Representation(place.layers, edit.rank, place.role)


def write_adapter(adapted: AdaptedModel, folder: Path, about: Description, card: str) -> None:
    """Write an adapter folder that plain `peft` loads; a representation edit lies beside it, or alone.

    Of a method that adds parts to the model the folder holds what it trained, for `absa_edit.load` alone.
    """
    with whole_folder(folder) as temporary:
        if adapted.settings:
            parts = {name: tensor.detach().cpu().contiguous() for name, tensor in adapted.trainable().items()}
            save_file(parts, temporary / PARTS)
            files = (PARTS, PLAN) if adapted.plan else (PARTS,)
            _finish(temporary, adapted, replace(about, files=files), card)
            return
        if adapted.peft:
            adapted.peft.peft_config["default"].base_model_name_or_path = about.base
            adapted.peft.save_pretrained(str(temporary), save_embedding_layers=False)
            _plain_config(temporary)
        if adapted.representation:
            edit = adapted.representation
            state = {
                f"{layer}.{name}": tensor.detach().contiguous().clone()
                for layer, layer_edit in edit.by_layer(edit.places[0]).items()
                for name, tensor in (
                    ("rotation", layer_edit.rotation()),
                    ("source.weight", layer_edit.source.weight),
                    ("source.bias", layer_edit.source.bias),
                )
            }
            save_file(state, temporary / REPRESENTATION)
        weights = tuple(sorted(p.name for p in temporary.iterdir() if p.suffix in (".json", ".safetensors")))
        _finish(temporary, adapted, replace(about, files=weights), card)


def read_representation(folder: Path, about: Description, model: PreTrainedModel) -> RepresentationEdit | None:
    """The representation edit in a folder that `write_adapter` wrote, on the device of `model`."""
    representation = about.representation
    if representation is None:
        return None
    state = load_file(folder / REPRESENTATION)
    place = Place(representation.layers, representation.position)
    edit = RepresentationEdit([place], model.config.hidden_size, representation.rank)
    with torch.no_grad():
        for layer, layer_edit in edit.by_layer(place).items():
            layer_edit.rows.copy_(state[f"{layer}.rotation"])
            layer_edit.source.weight.copy_(state[f"{layer}.source.weight"])
            layer_edit.source.bias.copy_(state[f"{layer}.source.bias"])
    return edit.to(model.device).requires_grad_(False)


def write_merged(
    adapted: AdaptedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, about: Description, card: str
) -> None:
    """Write a checkpoint that plain `transformers` loads, deltas folded into the weights."""
    with whole_folder(folder) as temporary:
        merged(adapted).save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        _finish(temporary, adapted, about, card)


def merged(adapted: AdaptedModel) -> PreTrainedModel:
    """A plain copy of the model with its deltas folded in; summed in float32, cast once.

    Raises `CannotMerge` where PEFT, or a method that adds parts, has no way to fold them into weights. What breaks
    while it folds (deltas that are no numbers) is no such case, and ends the export.
    """
    if adapted.fold:
        return adapted.fold()
    if adapted.settings:
        raise CannotMerge(f"what {adapted.kind} adds to the model is none of its weights")
    if adapted.prefix:
        raise CannotMerge(f"the keys and values that {adapted.kind} trains stand before all tokens and are no weights")
    if adapted.peft is None:
        return adapted.model
    dtype = adapted.model.dtype
    float32_copy: PeftModel = copy.deepcopy(adapted.peft).to(torch.float32)
    try:
        return cast(PreTrainedModel, float32_copy.merge_and_unload(safe_merge=True).to(dtype))
    except NotImplementedError as error:
        kind = type(adapted.peft.peft_config["default"]).__name__.removesuffix("Config")
        reason = str(error).strip().splitlines()
        raise CannotMerge(
            f"{kind} cannot be folded into the weights ({reason[0] if reason else 'PEFT has no way to'})"
        ) from error


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder that takes the place of `folder` when the block ends without an error."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        yield temporary
        shutil.rmtree(folder, ignore_errors=True)
        temporary.chmod(0o755)
        temporary.replace(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def base_of(model: ModelSettings) -> str:
    """The base model's name for use from anywhere: a hub id, an absolute folder, or a name that the package knows."""
    is_folder = not is_named(model.name) and Path(model.name).is_dir()
    return str(Path(model.name).resolve()) if is_folder else model.name


def _plain_config(folder: Path) -> None:
    """Put the targets of a saved adapter in order (PEFT keeps a set), and give all deltas of a LoRA the largest rank,
    with rows and columns of 0, so that it can do without patterns.

    vLLM drops them before 0.32, and llama.cpp divides by each tensor's own rank. All sites share one
    alpha / rank (`absa_edit.methods`), so that nothing but the shapes changes.
    """
    path, weights = folder / ADAPTER, folder / "adapter_model.safetensors"
    config = json.loads(path.read_text(encoding="utf-8"))
    config |= {key: sorted(value) for key, value in config.items() if key in SETS and isinstance(value, list)}
    write_json(config, path)
    if config["peft_type"] != "LORA" or not config["rank_pattern"]:
        return
    tensors = load_file(weights)
    for name, tensor in tensors.items():
        down = ".lora_A." in name  # rank x inputs; B is outputs x rank
        missing = config["r"] - tensor.shape[0 if down else 1]
        tensors[name] = pad(tensor, (0, 0, 0, missing) if down else (0, missing))
    save_file(tensors, weights, metadata={"format": "pt"})
    write_json({**config, "rank_pattern": {}, "alpha_pattern": {}}, path)


def _finish(folder: Path, adapted: AdaptedModel, about: Description, card: str) -> None:
    write_json(about, folder / ABOUT)
    if adapted.plan:
        write_json(adapted.plan, folder / PLAN)
    (folder / "README.md").write_text(card, encoding="utf-8")
