"""What matrix products are computed in where the settings leave that to the machine."""

from __future__ import annotations

import platform

import torch
from torch import nn

from absa_edit.errors import SettingsError
from absa_edit.model.settings import Dtype, Precision


def has_bfloat16_units(device: torch.device) -> bool:
    """Whether `device` multiplies bfloat16 matrices in hardware.

    A CPU without (most have AVX2 and no more) trains far slower in bfloat16 than in float32.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if platform.machine() in ("x86_64", "AMD64"):  # oneDNN says yes to all of AVX-512, and emulates
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def of_training(precision: Precision | str | None, model: nn.Module) -> Precision:
    """`precision` as it is set, else bf16 where the model's device is good at it.

    Also where its weights are of a half precision: their products would not be float32 ones in any case.
    """
    if precision is not None:
        return Precision(precision)
    weight = next(model.parameters())
    half = weight.dtype != torch.float32
    return Precision.bf16 if half or has_bfloat16_units(weight.device) else Precision.float32


def of_trace(dtype: Dtype | str | None, model: nn.Module, *, estimated: bool) -> Dtype:
    """The `dtype` of a trace as it is set, else the model's own; for estimates bfloat16 where the device is good at it.

    Raises `SettingsError` for bfloat16 products of float16 weights: rounded twice, they are neither's.
    """
    weight = next(model.parameters())
    if dtype is not None:
        if Dtype(dtype) is Dtype.bfloat16 and weight.dtype == torch.float16:
            raise SettingsError(
                "trace.dtype=bfloat16: the model's weights are float16; load it in another model.dtype, or leave "
                "trace.dtype=float32, which keeps the model's own"
            )
        return Dtype(dtype)
    rounds = estimated and weight.dtype == torch.float32
    return Dtype.bfloat16 if rounds and has_bfloat16_units(weight.device) else Dtype.float32
