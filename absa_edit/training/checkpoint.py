"""A training's state after an epoch, in safetensors and JSON, so that an interrupted fit goes on where it was."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from absa_edit.storage import atomic, read_kept, readable, write_json


@dataclass
class Progressed:
    """How far a fit is: what it needs besides the weights and the optimiser's moments."""

    epoch: int = 0
    steps: int = 0
    seconds: float = 0.0
    peak_bytes: int = 0
    micro_batch: int = 0
    best_epoch: int = 0
    best_macro_f1: float = -1.0
    history: list[dict[str, float]] = field(default_factory=list)
    flops: float = 0.0
    """Of one epoch."""


class Checkpoint:
    """The folder `checkpoint/` of one method; gone once the method is done."""

    def __init__(self, folder: Path, key: str) -> None:
        self.folder = folder
        self.key = key

    def save(
        self,
        progressed: Progressed,
        trained: dict[str, Tensor],
        best: dict[str, Tensor],
        optimizer: torch.optim.Optimizer,
    ) -> None:
        """Write everything under a new epoch's name, then point `state.json` at it, then drop the old one."""
        tensors = {f"trained/{n}": t for n, t in trained.items()}
        tensors |= {f"best/{n}": t for n, t in best.items()}
        moments = optimizer.state_dict()["state"]
        tensors |= {f"optimizer/{i}/{n}": t for i, state in moments.items() for n, t in state.items()}
        name = f"epoch{progressed.epoch}-{self.key}.safetensors"  # never over a file that state.json points at
        with atomic(self.folder / name) as temporary:
            save_file({n: t.detach().cpu().contiguous().clone() for n, t in tensors.items()}, temporary)
        write_json({"key": self.key, "file": name, **vars(progressed)}, self.folder / "state.json")
        for old in self.folder.glob("epoch*.safetensors"):
            if old.name != name:
                old.unlink()

    def load(
        self, trained: dict[str, Tensor], optimizer: torch.optim.Optimizer
    ) -> tuple[Progressed, dict[str, Tensor]] | None:
        """Put back weights and moments; how far the fit was and its best weights, or None without a checkpoint.

        A checkpoint of other settings, data or model counts as none.
        """
        with readable(self.folder / "state.json"):
            state = read_kept(self.folder / "state.json", self.key)
            if state is None:
                return None
            tensors = load_file(self.folder / state.pop("file"))
        with torch.no_grad():
            for name, parameter in trained.items():
                parameter.copy_(tensors[f"trained/{name}"])
        current_state = optimizer.state_dict()
        moments: dict[int, dict[str, Tensor]] = {}
        for key, tensor in tensors.items():
            if key.startswith("optimizer/"):
                _, index, name = key.split("/")
                moments.setdefault(int(index), {})[name] = tensor
        optimizer.load_state_dict({"state": moments, "param_groups": current_state["param_groups"]})
        best = {n.removeprefix("best/"): t for n, t in tensors.items() if n.startswith("best/")}
        return Progressed(**state), best

    def remove(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)
