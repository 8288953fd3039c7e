"""What matrix products are computed in where the settings leave that to the machine."""

from __future__ import annotations

import platform

import torch

from absa_edit.config import Dtype, Engine, Precision, TraceSettings


def has_bfloat16_units(device: torch.device) -> bool:
    """Whether `device` multiplies bfloat16 matrices in hardware.

    A CPU without (most have AVX2 and no more) took 17 times as long to train an edit in bfloat16 as in float32.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if platform.machine() in ("x86_64", "AMD64"):  # oneDNN says yes to all of AVX-512, and emulates
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()


def of_training(precision: Precision | None, device: torch.device) -> Precision:
    """`precision` as it is set, else bf16 where `device` is good at it."""
    return precision or (Precision.bf16 if has_bfloat16_units(device) else Precision.float32)


def of_trace(settings: TraceSettings, device: torch.device) -> Dtype:
    """The trace's dtype as it is set, else float32, but for estimates bfloat16 where `device` is good at it."""
    estimated = settings.engine is not Engine.exact
    return settings.dtype or (Dtype.bfloat16 if estimated and has_bfloat16_units(device) else Dtype.float32)
