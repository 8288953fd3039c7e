"""GGUF files: dequantised once into a folder of safetensors in the user's cache, which later loads like any other."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from gguf import GGUFReader, LlamaFileType
from transformers import AutoModelForCausalLM, AutoTokenizer

from absa_edit.errors import ModelError
from absa_edit.model.check import check_weights
from absa_edit.model.known import models_folder
from absa_edit.storage import load, write_json

RECORD = "gguf.json"
"""What a dequantised folder says of the file that it was made from."""


@dataclass(frozen=True, slots=True)
class GgufSource:
    """The file that a folder's weights were dequantised from."""

    file: str
    sha256: str
    quantization: str
    """As llama.cpp names it, e.g. `Q4_1`, `Q4_K_M`."""
    architecture: str


def gguf_source(folder: Path) -> GgufSource | None:
    """What `folder` was dequantised from; None for one that was not."""
    path = folder / RECORD
    return load(GgufSource, path) if path.is_file() else None


def dequantised(file: Path) -> Path:
    """The folder in the user's cache that holds the weights of a GGUF file, made where there is none.

    It is found again by the file's content. Raises what `dequantise` does.
    """
    sha256 = file_sha256(file)
    folder = models_folder() / f"{file.stem}-{sha256[:12]}"
    if not (folder / RECORD).is_file():
        dequantise(file, folder, sha256)
    return folder


def dequantise(file: Path, folder: Path, sha256: str) -> None:
    """Write the weights of `file`, as float32, its configuration and its tokenizer to `folder`, whole or not at all.

    Raises `ModelError` for a file that is no GGUF, is cut, lacks weights, or is of an architecture that transformers
    cannot read.
    """
    source = _described(file, sha256)
    options = {"gguf_file": file.name}
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            file.parent, dtype=torch.float32, output_loading_info=True, **options
        )
        tokenizer = AutoTokenizer.from_pretrained(file.parent, **options)
    # transformers has no error of its own for it: an architecture that it does not know is a ValueError or KeyError, a
    # quantisation that gguf cannot undo a NotImplementedError, a tensor of another shape a RuntimeError
    except (OSError, ValueError, KeyError, NotImplementedError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"{file}: transformers cannot read this GGUF of architecture {source.architecture!r} ({reason}); name the "
            "original model as a folder of safetensors or a hub id"
        ) from error
    model = loaded[0]
    check_weights(model, loaded[1])  # those that the file lacks are random, and would be saved as if they were its own
    del model.config.quantization_config  # the weights are no longer quantised, and with it they cannot be saved
    model.hf_quantizer = None
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        write_json(source, temporary / RECORD)
        for path in temporary.iterdir():
            path.chmod(0o644)
        temporary.chmod(0o755)
        shutil.rmtree(folder, ignore_errors=True)
        temporary.replace(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def file_sha256(file: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal digits."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _described(file: Path, sha256: str) -> GgufSource:
    """What the header says; it also tells where each tensor has to lie, so that a cut file is found here."""
    try:
        reader = GGUFReader(file)
        architecture = str(reader.fields["general.architecture"].contents())
        kind = reader.fields.get("general.file_type")
        name = LlamaFileType(kind.contents()).name if kind else _commonest(reader)
    except (ValueError, IndexError, KeyError, OSError, UnicodeDecodeError, OverflowError, TypeError) as error:
        raise ModelError(
            f"{file}: not a whole GGUF file ({' '.join(str(error).split())[:120]}); download it again"
        ) from error
    return GgufSource(file.name, sha256, name.removeprefix("MOSTLY_").removeprefix("ALL_"), architecture)


def _commonest(reader: GGUFReader) -> str:
    entries: Counter[str] = Counter()
    for tensor in reader.tensors:
        entries[tensor.tensor_type.name] += int(tensor.n_elements)
    return entries.most_common(1)[0][0]
