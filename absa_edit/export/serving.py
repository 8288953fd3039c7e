"""What vLLM would make of an exported folder, found out without a server or a GPU."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from absa_edit.errors import RecordError, SettingsError
from absa_edit.export.adapter_rules import ADAPTER_RULES, RANKS, Adapter, Problem, Shapes
from absa_edit.export.folder import PARTS, REPRESENTATION
from absa_edit.model.known import is_named
from absa_edit.model.sources import model_folder

REQUIRED: dict[str, tuple[str, tuple[type, ...]]] = {
    "r": ("positive number", (int,)),
    "lora_alpha": ("number", (int, float)),
    "target_modules": ("list", (list, str)),
}
"""Fields that vLLM's reader insists on. Source: vllm/lora/peft_helper.py, `PEFTHelper`."""


ACTS_AT_THE_ASPECT = Problem(
    "a representation edit acts at the aspect, which no weight can express, and vLLM has no place for it "
    "(vllm-project/vllm#4413)",
    "serve it through absa_edit.load, or train with representation=false",
)


PARTS_OF_ITS_OWN = Problem(
    "the method adds parts to the model that vLLM has no place for",
    "serve it through absa_edit.load, or export a method with an adapter of PEFT's or a merged checkpoint",
)


@dataclass(frozen=True)
class Served:
    """One servable folder: how to serve it, and what stands in the way."""

    folder: Path
    command: str
    problems: tuple[Problem, ...]

    @property
    def works(self) -> bool:
        return not any(problem.fatal for problem in self.problems)


def check_serving(folder: Path, *, max_rank: int = 16, base: str | None = None) -> list[Served]:
    """What vLLM would make of an adapter, a merged checkpoint, or both of a run folder.

    `base` is where the base model lies, if not where the adapter says; it is read, never downloaded.
    Raises `RecordError` for a folder without anything to serve, `SettingsError` for a limit that no server takes.
    """
    if max_rank not in RANKS:
        raise SettingsError(f"--max-lora-rank {max_rank}: vLLM takes one of {', '.join(map(str, RANKS))}")
    exports = [at for at in (folder, folder / "export" / "adapter", folder / "export" / "merged") if _is_export(at)]
    if not exports:
        raise RecordError(
            f"{folder}: nothing to serve in it; expected adapter_config.json (an adapter), config.json (a checkpoint), "
            "or a run folder with export/"
        )
    return [_adapter(export, max_rank, base) if _is_adapter(export) else _checkpoint(export) for export in exports]


def _is_adapter(folder: Path) -> bool:
    return any(folder.glob("adapter_*")) or any((folder / name).exists() for name in (REPRESENTATION, PARTS))


def _is_export(folder: Path) -> bool:
    return any(folder.glob("adapter_*")) or any((folder / name).exists() for name in ("config.json", "absa_edit.json"))


def _adapter(folder: Path, max_rank: int, base: str | None) -> Served:
    """Deltas on a base model. Source: `ADAPTER_RULES`; vllm/lora/ops/triton_ops on 16 bits."""
    problems: list[Problem] = []
    if (folder / REPRESENTATION).exists():
        return Served(folder, "", (ACTS_AT_THE_ASPECT,))
    if (folder / PARTS).exists():
        return Served(folder, "", (PARTS_OF_ITS_OWN,))
    config = _json(folder / "adapter_config.json", problems)
    shapes = _shapes(folder, "adapter_model.safetensors", problems)
    read = config or {}
    if (kind := read.get("peft_type", "LORA")) != "LORA":  # its other fields are none of LoRA's
        fix = "only LoRA adapters are served: serve the merged checkpoint where there is one, or train LoRA"
        return Served(folder, "", (Problem(f"peft_type is {kind}", fix),))
    wrong = [key for key, (_, kind) in REQUIRED.items() if config is not None and not isinstance(read.get(key), kind)]
    if not wrong and read.get("r", 1) < 1:
        wrong = ["r"]
    if wrong:
        what = f"adapter_config.json: {wrong[0]} is missing or no {REQUIRED[wrong[0]][0]}"
        problems.append(Problem(what, "export it again"))
    name = base or read.get("base_model_name_or_path") or "<base model>"
    where = model_folder(name) if is_named(name) else Path(name)
    if config is not None and shapes is not None and not wrong:
        there = (where / "config.json").exists()
        settings = (_json(where / "config.json", []) if there else None) or {}
        base_shapes = _shapes(where, "*.safetensors", []) if there else None
        architecture = next(iter(settings.get("architectures") or ()), None)
        adapter = Adapter(folder, config, shapes, architecture, base_shapes, max_rank)
        problems += [problem for rule in ADAPTER_RULES for problem in rule(adapter)]
        if shapes:
            problems.append(
                Problem(
                    "on a GPU vLLM applies adapters in 16 bits: close calls may fall the other way",
                    "serve the merged checkpoint with --dtype float32 where every answer has to be the same",
                    fatal=False,
                )
            )
    command = f"vllm serve {where} --enable-lora --max-lora-rank {max_rank} --lora-modules absa={folder}"
    return Served(folder, command, tuple(problems))


def _checkpoint(folder: Path) -> Served:
    """A whole model. Source: vLLM's docs/models/supported_models.md; vllm/config/model.py on dtype=auto."""
    problems: list[Problem] = []
    config = _json(folder / "config.json", problems)
    shapes = _shapes(folder, "*.safetensors", problems)
    command = f"vllm serve {folder}"
    if config is not None and not config.get("architectures"):
        problems.append(Problem("config.json names no architecture", "save it with save_pretrained"))
    if config is not None and config.get("dtype", config.get("torch_dtype")) == "float32":
        command += " --dtype float32"
        problems.append(
            Problem("float32 weights, which vLLM serves in 16 bits by itself", "pass --dtype float32", fatal=False)
        )
    adapted = [name for name in shapes or () if ".lora_" in name or ".base_layer." in name]
    if adapted:
        problems.append(Problem(f"{adapted[0]} is an adapter's: it was saved unmerged", "merge it before saving"))
    if not any((folder / name).exists() for name in ("tokenizer.json", "tokenizer.model")):
        problems.append(Problem("no tokenizer", "put the base model's tokenizer beside the weights"))
    return Served(folder, command, tuple(problems))


def _json(path: Path, problems: list[Problem]) -> dict[str, Any] | None:
    """The object in a JSON file; None, and a problem, where there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content, dict):
            return content
        problems.append(Problem(f"{path.name} is no JSON object", "export it again"))
    except OSError:
        problems.append(Problem(f"no {path.name}", "export it again, or copy the whole folder"))
    except ValueError as error:
        problems.append(Problem(f"{path.name} is not JSON ({error})", "export it again"))
    return None


def _shapes(folder: Path, pattern: str, problems: list[Problem]) -> Shapes | None:
    """Shape of each tensor in the matching files; None, and a problem, where there are none."""
    files = sorted(folder.glob(pattern))
    index = folder / "model.safetensors.index.json"
    named = set((_json(index, problems) or {}).get("weight_map", {}).values()) if index.exists() else set()
    missing = sorted(named - {file.name for file in files})
    if missing or not files:
        what = missing[0] if missing else pattern.replace("*", "model")
        problems.append(
            Problem(f"no {what} (pickled weights are not read)", "export it again, or copy the whole folder")
        )
        return None
    try:
        return dict(shape for file in files for shape in _header(file))
    except SafetensorError as error:
        problems.append(Problem(f"{folder.name}: broken weights ({error})", "export it again, or copy it again"))
        return None


def _header(file: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    with safe_open(file, "pt") as tensors:
        for name in tensors.keys():  # noqa: SIM118 - not a dict
            yield name, tuple(tensors.get_slice(name).get_shape())
