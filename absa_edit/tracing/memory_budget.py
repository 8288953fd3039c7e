"""How much is computed at once: as much as the settings say, until it turns out not to fit."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch

log = logging.getLogger("absa_edit")


@dataclass
class MemoryBudget:
    """One trace's, for all that is computed; a single row that needs more is computed all the same."""

    states: int
    """Hidden states (rows x positions) in a batch."""

    def lower(self, failed: int) -> None:
        """After a batch of `failed` states ran out of memory: half as many from now on.

        To be called once that error is handled: until then it holds on to what filled the memory.
        """
        torch.cuda.empty_cache()
        self.states = failed // 2
        log.warning("out of memory: from now on at most %d hidden states at once (trace.batch_tokens)", self.states)
