"""Where a model's name leads: to the bundled model, a fetched one, a folder, a GGUF file, or a hub."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

from transformers.utils.hub import cached_file

from absa_edit.errors import ModelError
from absa_edit.model.gguf import RECORD, dequantised
from absa_edit.model.known import PACKAGED, REVIEWLM, command_to_fetch, is_named
from absa_edit.model.settings import ModelSettings


def reviewlm() -> Path:
    """The folder of the bundled model."""
    return Path(str(files("absa_edit") / "assets" / "reviewlm"))


def model_folder(name: str) -> Path:
    """The folder of a model that the package knows by name, as other libraries load it.

    Raises `ModelError` for one that was not fetched yet, and for a name that the package does not know.
    """
    if name == REVIEWLM:
        return reviewlm()
    if name not in PACKAGED:
        raise ModelError(f"{name}: no model that the package knows; expected one of {', '.join([REVIEWLM, *PACKAGED])}")
    model = PACKAGED[name]
    if not (model.folder / RECORD).is_file():
        raise ModelError(f"model.name={name}: not fetched yet; `{command_to_fetch(model)}` brings it, once")
    return model.folder


def find_model(settings: ModelSettings) -> str:
    """The folder that `settings` name, of a GGUF file the one that it is dequantised into; else the hub id.

    Raises `ModelError` for what is no model: another file, an adapter, a folder of GGUF files without `model.gguf`.
    """
    name, path = settings.name, Path(settings.name).expanduser()
    if settings.gguf:
        file = path / settings.gguf if path.is_dir() else _from_hub(name, settings.gguf, settings.revision)
        if not file.is_file():
            beside = ", ".join(sorted(f.name for f in path.glob("*.gguf"))) or "none"
            raise ModelError(f"model.gguf={settings.gguf}: no such file in {name} (GGUF files there: {beside})")
        return str(dequantised(file))
    if path.is_file() and path.suffix == ".gguf":
        return str(dequantised(path))
    if is_named(name) and not path.is_dir():
        return str(model_folder(name))
    _check_folder(path, name)
    return name


def _from_hub(name: str, gguf: str, revision: str | None) -> Path:
    try:
        return Path(str(cached_file(name, gguf, revision=revision)))
    except OSError as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"model.name={name} model.gguf={gguf}: {reason}") from error


def _check_folder(path: Path, name: str) -> None:
    """Raises `ModelError` for a file, an adapter or GGUF files where a model's folder is expected."""
    expected = "expected a folder with config.json, model.safetensors and a tokenizer, or a .gguf file"
    if path.is_file():
        raise ModelError(f"model.name={name}: a file; {expected}: name one of these")
    if not path.is_dir() or (path / "config.json").is_file():
        return
    adapter = path / "adapter_config.json"
    if adapter.is_file():
        base = json.loads(adapter.read_text(encoding="utf-8")).get("base_model_name_or_path")
        raise ModelError(
            f"model.name={name}: an adapter of {base}, and no model; name a merged checkpoint (export/merged of the "
            "same run), or ask the adapter with absa_edit.load"
        )
    if ggufs := sorted(path.glob("*.gguf")):
        raise ModelError(f"model.name={name}: a folder of GGUF files; say which one, e.g. model.gguf={ggufs[0].name}")
