"""Which language model a run stands on, and what its matrix products are computed in."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from omegaconf import MISSING

from absa_edit.errors import SettingsError


class Dtype(StrEnum):
    """What the matrix products of a trace are computed in."""

    float32 = "float32"
    """The model's own dtype: nothing is rounded."""
    bfloat16 = "bfloat16"
    """Faster where the machine has bfloat16 units, and an approximation: single effects move a little."""


class Precision(StrEnum):
    float32 = "float32"
    bf16 = "bf16"


@dataclass
class ModelSettings:
    """The language model to trace and edit."""

    name: str = MISSING
    """`reviewlm` (bundled), one that `absa-edit model fetch` brings, a folder, a GGUF file, or a hub id."""
    gguf: str | None = None
    """Name of a GGUF file in the folder or hub repository `name`; its weights are dequantised once, into the cache."""
    revision: str | None = None
    dtype: str = "float32"
    """float32, bfloat16 or float16: the dtype that weights are loaded in."""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps, or auto: cuda where there is one, else cpu."""
    device_map: str | None = None
    """Passed to transformers (e.g. `auto`); leaves `device` unused."""
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        if self.dtype not in ("float32", "bfloat16", "float16"):
            raise SettingsError(f"model.dtype={self.dtype}: expected float32, bfloat16 or float16")
