"""Load a causal language model and its tokenizer from the package, a folder, a GGUF file or the hub."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils.hub import cached_file, extract_commit_hash

from absa_edit.errors import ModelError
from absa_edit.model.block_runner import BlockRunner
from absa_edit.model.check import check_run, check_weights
from absa_edit.model.gguf import gguf_source
from absa_edit.model.known import is_named
from absa_edit.model.settings import ModelSettings
from absa_edit.model.sources import find_model
from absa_edit.results import ModelSummary

TRIED = (
    "The screen is lovely but the fan never stops, and the battery life is terrible: plug it in at noon.\n"
    "The sentiment towards the battery life is"
)
"""What a model is asked when it is loaded."""


@dataclass(frozen=True)
class LanguageModel:
    """A loaded model, ready to trace: evaluation mode, no gradients."""

    name: str
    source: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    sha256: str
    """Of the weights; the commit of a hub model."""
    files_sha256: str = ""
    """Of what else of a folder results depend on: configuration, tokenizer, chat template."""
    weights: str = ""
    """What was done to the weights before they came here, e.g. `dequantised from Q4_1`."""

    @cached_property
    def runner(self) -> BlockRunner:
        """What runs the model block by block; built once."""
        return BlockRunner(self.model)

    def settings(self) -> ModelSettings:
        """What loads the same weights again; a hub model by its commit, which is its hash."""
        is_here = is_named(self.source) or Path(self.source).is_dir()
        return ModelSettings(name=self.source, revision=None if is_here else self.sha256)

    def summary(self) -> ModelSummary:
        """What `results.json` says of the model."""
        dtype = str(self.model.dtype).removeprefix("torch.")
        parameters, layers = self.model.num_parameters(), self.runner.layers
        return ModelSummary(self.name, self.source, self.sha256, parameters, layers, dtype, self.weights)


def load_model(settings: ModelSettings) -> LanguageModel:
    """The model that `settings` name, on its device.

    Raises `ModelError` when it cannot be found, is of no known family, or does not pass `absa_edit.model.check`:
    weights that did not load or are not finite, and a short run that is not the model's own.
    """
    where = find_model(settings)
    options = {"revision": settings.revision, "trust_remote_code": settings.trust_remote_code}
    placement: dict[str, object] = {"device_map": settings.device_map} if settings.device_map else {}
    device = choose_device(settings.device)
    try:
        tokenizer = AutoTokenizer.from_pretrained(where, **options)
        config = AutoConfig.from_pretrained(where, **options)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            where,
            config=config,
            dtype=getattr(torch, settings.dtype),
            attn_implementation=_attention(device, config),
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are told by `check_weights`, with both shapes
            **options,
            **placement,
        )
    except (OSError, ValueError, ImportError, SafetensorError) as error:
        raise ModelError(
            f"model.name={settings.name}: {' '.join(str(error).split())[:300]} (expected `reviewlm`, a folder with "
            "config.json, model.safetensors and a tokenizer, a GGUF file, or a hub id that can be reached)"
        ) from error
    model: PreTrainedModel = loaded[0]
    if not placement:
        model.to(device)  # type: ignore[arg-type]
    _check_on_one_device(model, settings.device_map)
    model.eval().requires_grad_(False)
    BlockRunner(model)  # an unknown family should stop here, not in the middle of a run
    check_weights(model, loaded[1])
    check_run(model, tokenizer(TRIED)["input_ids"])
    sha256 = _weights_hash(where, settings.revision)
    quantised = gguf_source(Path(where))
    is_file = quantised and not is_named(settings.name)  # the folder that it became loads everywhere
    return LanguageModel(
        slug(settings.name) if settings.gguf is None else Path(settings.gguf).stem,
        where if is_file else settings.name,
        model,
        tokenizer,
        sha256,
        _files_hash(where),
        f"dequantised from {quantised.quantization}" if quantised else "",
    )


def _check_on_one_device(model: PreTrainedModel, device_map: str | None) -> None:
    """A trace runs blocks one by one, on states that stay where they are. Raises `ModelError`."""
    places = {place for place in getattr(model, "hf_device_map", {}).values() if place not in ("cpu", "disk")}
    if len(places) > 1:
        raise ModelError(
            f"model.device_map={device_map} spreads the model over the devices {sorted(map(str, places))}: expected "
            "one. Show torch a single GPU (CUDA_VISIBLE_DEVICES=0; what it has no room for stays in memory), or take "
            "model.dtype=bfloat16"
        )


def choose_device(name: str) -> torch.device:
    """The device called `name`; `auto` is the GPU where there is one, each process's own where there are several."""
    if name == "auto":
        local_rank = int(os.environ.get("LOCAL_RANK", 0))  # set by accelerate and torchrun
        return torch.device("cuda", local_rank) if torch.cuda.is_available() else torch.device("cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ModelError(f"model.device={name}: torch sees no CUDA device here; use cpu or auto")
    try:
        return torch.device(name)
    except RuntimeError:
        raise ModelError(f"model.device={name}: no such device; use cpu, cuda, cuda:1, mps or auto") from None


def _attention(device: torch.device, config: PreTrainedConfig) -> str | None:
    """What is fastest for prompts; on a CPU the fused kernel is slower to go back over a batch than the eager one.

    Falcon with ALiBi (Falcon-RW) adds its bias twice in the eager attention of transformers 5.23.
    """
    if config.model_type == "falcon" and config.alibi:
        return "sdpa"
    return "eager" if device.type == "cpu" else None


def slug(name: str) -> str:
    """The last part of a hub id, folder or GGUF file, as used in the run folder's path."""
    return Path(name.rstrip("/")).name.removesuffix(".gguf")


def _weights_hash(where: str, revision: str | None) -> str:
    """SHA-256 of the weight files of a folder; the commit of a hub model. Raises `ModelError` without one."""
    if not Path(where).is_dir():
        commit = extract_commit_hash(cached_file(where, "config.json", revision=revision), None)
        if commit is None:
            raise ModelError(f"model.name={where}: its commit is not known; download it to a folder and name that")
        return commit
    digest = hashlib.sha256()
    for shard in sorted(Path(where).glob("*.safetensors")):
        with shard.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _files_hash(where: str) -> str:
    """SHA-256 of the small files of a folder, with their names; nothing for a hub model, whose commit says it all."""
    kinds = (".json", ".jinja", ".txt", ".model", ".py")
    small_files = sorted(f for f in Path(where).glob("*") if f.suffix in kinds) if Path(where).is_dir() else []
    digest = hashlib.sha256()
    for file in small_files:
        digest.update(hashlib.sha256(file.name.encode()).digest() + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest() if small_files else ""
