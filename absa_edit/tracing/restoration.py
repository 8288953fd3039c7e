"""What is read of an answer, and what each restoration brings back of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from absa_edit.data.prompts import Labels
from absa_edit.errors import ModelError
from absa_edit.model.block_runner import BlockRunner
from absa_edit.records import Part
from absa_edit.tracing.clean_and_corrupted import CleanAndCorrupted
from absa_edit.tracing.exact_patching import Cell, Entries, restored
from absa_edit.tracing.memory_budget import MemoryBudget

Logits = Float[Tensor, "_ word"]
Only = Bool[np.ndarray, "part role layer"]
"""Which cells to run, where not all."""
CLEAN_WRONG, CORRUPTED_RIGHT = "clean_wrong", "corrupted_right"


@dataclass(frozen=True)
class Answer:
    """Which of the label words is the right answer; logits are of all of them, in label order."""

    words: tuple[int, ...]
    gold: int

    def read(self, logits: Logits) -> tuple[Float[Tensor, " row"], Float[Tensor, " row"]]:
        """Probability of the gold label among the label words, and its margin (gold logit minus the larger other)."""
        others = [i for i in range(len(self.words)) if i != self.gold]
        return logits.softmax(-1)[:, self.gold], logits[:, self.gold] - logits[:, others].amax(1)

    def means(self, logits: Logits) -> tuple[float, float]:
        """Probability and margin, averaged over the rows."""
        probability, margin = self.read(logits)
        return float(probability.mean()), float(margin.mean())

    def note(self, clean: Logits, corrupted: Logits) -> str | None:
        """Why the paper's filter leaves the example out, if it does."""
        if not self.right(clean):
            return CLEAN_WRONG
        return CORRUPTED_RIGHT if self.right(corrupted) else None

    def right(self, logits: Logits) -> bool:
        return int(logits.softmax(-1).mean(0).argmax()) == self.gold


def first_words(labels: Labels) -> tuple[int, ...]:
    """The first token of each label word. Raises `ModelError` when two words share it."""
    words = tuple(word[0] for word in labels.values())
    if len(set(words)) < len(words):
        raise ModelError(
            "tracing reads the first token of each label word, and two of the words share it; "
            "choose other prompt.labels or another prompt.separator"
        )
    return words


def restore(
    runner: BlockRunner,
    runs: CleanAndCorrupted,
    units: Sequence[Sequence[int]],
    cells: Sequence[Cell],
    answer: Answer,
    damaged: tuple[float, float],
    budget: MemoryBudget,
    only: Only | None = None,
) -> dict[Part, np.ndarray]:
    """Probability and margin of every cell, or of `only` some, restored at each of `units` (sets of positions).

    By part an array (measure, unit, layer), for head (measure, unit, layer, head); means over the samples. `damaged` is
    what the corrupted run gives, and so does every cell that cannot reach the answer; nan for a unit without positions.
    """
    shape = (2, len(units), runner.layers)
    parts = tuple(dict.fromkeys(c.part for c in cells))
    grids = {part: np.full((*shape, runner.heads) if part is Part.head else shape, np.nan) for part in parts}
    cells_to_run = [
        [c for c in cells if only is None or only[parts.index(c.part), number, c.layer]] for number in range(len(units))
    ]
    chosen = [p for unit, some in zip(units, cells_to_run, strict=True) if some for p in unit]
    entries = Entries(runner, runs, chosen, budget)
    for number, positions in enumerate(units):
        if not positions:
            continue
        for grid in grids.values():
            grid[:, number] = np.reshape(damaged, (2, *(1,) * (grid.ndim - 2)))
        groups = list(restored(entries, positions, cells_to_run[number]))
        if not groups:
            continue
        states = torch.cat([state for _, state in groups])
        logits = runner.logits(states, answer.words).float()
        values = torch.stack(answer.read(logits)).view(2, len(groups), -1).mean(2).cpu().numpy()
        for index, (group, _) in enumerate(groups):
            for cell in group:
                at = (slice(None), number, cell.layer)
                grids[cell.part][at + ((cell.head,) if cell.part is Part.head else ())] = values[:, index]
    return grids
