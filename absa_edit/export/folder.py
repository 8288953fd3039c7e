"""Write what a method trained: a PEFT adapter, a merged checkpoint, a representation edit."""

from __future__ import annotations

import copy
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import save_file
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from absa_edit.adapt import Adapted
from absa_edit.config import ModelSettings, PromptSettings
from absa_edit.storage import to_json, write_json

ABOUT = "absa_edit.json"
"""The file that tells `absa_edit.load` how to ask the model: prompt, labels, kind."""


def write_adapter(adapted: Adapted, folder: Path, *, model: ModelSettings, prompt: PromptSettings, card: str) -> None:
    """Write an adapter folder that plain `peft` loads; with a representation edit, that edit beside it."""
    assert adapted.peft is not None
    with whole_folder(folder) as temporary:
        adapted.peft.peft_config["default"].base_model_name_or_path = base_of(model)
        adapted.peft.save_pretrained(str(temporary), save_embedding_layers=False)
        if adapted.representation:
            edit = adapted.representation
            state = {
                f"{layer}.{name}": tensor.detach().contiguous().clone()
                for layer, one in edit.by_layer().items()
                for name, tensor in (
                    ("rotation", one.rotation.weight),
                    ("source.weight", one.source.weight),
                    ("source.bias", one.source.bias),
                )
            }
            save_file(state, temporary / "representation.safetensors")
        _describe(adapted, temporary, model, prompt, card)


def write_merged(
    adapted: Adapted,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    *,
    model: ModelSettings,
    prompt: PromptSettings,
    card: str,
) -> None:
    """Write a checkpoint that plain `transformers` loads, deltas folded into the weights."""
    with whole_folder(folder) as temporary:
        merged(adapted).save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        _describe(adapted, temporary, model, prompt, card)


def merged(adapted: Adapted) -> PreTrainedModel:
    """A plain copy of the model with its deltas folded in; summed in float32, cast once."""
    if adapted.peft is None:
        return adapted.model
    dtype = adapted.model.dtype
    whole: PeftModel = copy.deepcopy(adapted.peft).to(torch.float32)
    return whole.merge_and_unload(safe_merge=True).to(dtype)


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
    """The base model's name for use from anywhere: a hub id, an absolute folder, or `reviewlm`."""
    is_folder = model.name != "reviewlm" and Path(model.name).is_dir()
    return str(Path(model.name).resolve()) if is_folder else model.name


def _describe(adapted: Adapted, folder: Path, model: ModelSettings, prompt: PromptSettings, card: str) -> None:
    edit = adapted.representation
    about = {
        "kind": adapted.kind,
        "base": base_of(model),
        "revision": model.revision,
        "dtype": str(adapted.model.dtype).removeprefix("torch."),
        "prompt": to_json(prompt),
        "representation": edit and {"layers": list(edit.layers), "rank": edit.rank, "position": edit.position.value},
    }
    write_json(about, folder / ABOUT)
    if adapted.plan:
        write_json(adapted.plan, folder / "edit_plan.json")
    (folder / "README.md").write_text(card, encoding="utf-8")
