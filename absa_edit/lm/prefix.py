"""Hidden states that no edit changes, computed once an example: what enters the first block that trains."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from absa_edit.lm.answer import Ids, length_buckets
from absa_edit.lm.decoder import Decoder
from absa_edit.progress import Progress, silent


class FrozenPrefix:
    """The states that enter block `start` for each of some token rows; in memory, or on disk if they are many.

    Right while nothing below `start` trains: the caller drops it with the model it was made of.
    """

    def __init__(
        self,
        decoder: Decoder,
        rows: Sequence[Ids],
        start: int,
        *,
        gib: float,
        batch_tokens: int = 4096,
        progress: Progress = silent,
    ) -> None:
        self.start = start
        self.offsets = np.cumsum([0, *map(len, rows)])
        shape = (int(self.offsets[-1]), int(decoder.model.config.hidden_size))
        dtype = decoder.model.dtype
        size = shape[0] * shape[1] * dtype.itemsize
        if size <= gib * 2**30:
            self.states = torch.empty(shape, dtype=dtype)
        else:
            with tempfile.TemporaryDirectory(prefix="absa_edit-prefix-") as folder:  # the mapping outlives its name
                file = str(Path(folder) / "states")
                self.states = torch.from_file(file, shared=True, size=shape[0] * shape[1], dtype=dtype).view(shape)
        batches = list(length_buckets([len(r) for r in rows], batch_tokens))
        self._fill(decoder, rows, progress(batches, "frozen prefix", len(batches)))

    @torch.no_grad()
    def _fill(self, decoder: Decoder, rows: Sequence[Ids], batches: Iterable[list[int]]) -> None:
        for batch in batches:
            longest = max(len(rows[i]) for i in batch)
            ids = torch.tensor([[*rows[i], *[0] * (longest - len(rows[i]))] for i in batch])
            frame = decoder.begin(decoder.embed(ids.to(decoder.device)))
            hidden = decoder.run(frame.hidden, 0, self.start, frame).cpu()
            for row, i in zip(hidden, batch, strict=True):
                self.states[self.offsets[i] : self.offsets[i + 1]] = row[: len(rows[i])]

    def batch(self, indices: Sequence[int], device: torch.device) -> Float[Tensor, "row pos hidden"]:
        """The states of some rows, padded on the right with zeros."""
        rows = [self.states[self.offsets[i] : self.offsets[i + 1]] for i in indices]
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(device)
