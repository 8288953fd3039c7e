"""Tracing with matrix products in bfloat16: faster where the machine has units for it, and an approximation."""

from __future__ import annotations

import torch

from absa_edit.lm.decoder import Decoder, Frame, Hidden


class RoundedDecoder(Decoder):
    """A decoder whose blocks multiply matrices in bfloat16; on a CPU all but attention's own (`lm.attention.mix`).

    Weights, residual stream, norms, softmax and the answer's logits keep the model's dtype: rounding the residual
    stream too is what makes effects drift.
    """

    def run(self, hidden: Hidden, start: int, stop: int, frame: Frame) -> Hidden:
        with torch.autocast(self.device.type, torch.bfloat16):
            return super().run(hidden, start, stop, frame)
