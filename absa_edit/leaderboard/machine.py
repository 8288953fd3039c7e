"""What figures of speed depend on besides the code."""

from __future__ import annotations

import os
import platform
from pathlib import Path

UNITS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16")
"""Flags of a CPU that decide how fast matrix products are."""


def machine() -> dict[str, str]:
    """System, processor with the units that matter, and cores. An accelerator is named in a run's own record."""
    path = Path("/proc/cpuinfo")
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    lines = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    values = {key.strip(): value.strip() for key, value in lines.items()}
    flags = (values.get("flags") or values.get("Features") or "").split()
    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "processor": values.get("model name") or platform.processor(),
        "units": " ".join(unit for unit in UNITS if unit in flags),
        "cores": str(os.cpu_count()),
    }
