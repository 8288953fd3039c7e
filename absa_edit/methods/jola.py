"""JoLA: each head's output scaled and shifted, with gates that learn which heads are edited, and how."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from absa_edit.context import Context
from absa_edit.errors import SettingsError
from absa_edit.methods.adapted_model import AdaptedModel
from absa_edit.methods.base import Method, method
from absa_edit.methods.head_edit import HeadEdit, edit_heads, without_edits
from absa_edit.methods.settings import MethodSettings, OptionallyLocatedSettings
from absa_edit.model.block_runner import BlockRunner
from absa_edit.records import EditPlan

TEMPERATURE, LOW, HIGH = 0.33, -0.1, 1.1
"""Of the gates: how sharp they are, and the interval that they are stretched to before they are cut to 0 and 1.
Source: wenlai-lavine/jola, `modeling_llama.py`; Louizos et al. 2018 take 2/3 and the same interval."""
MARGIN = 1e-6
"""Least distance of the uniform noise from 0 and 1, where its logarithms end."""


@dataclass
class Jola(OptionallyLocatedSettings):
    """Gated scales and shifts of attention heads."""

    lr: float = 5e-3
    l0: float = 4e-5
    """What a gate costs that is open: the loss has l0 times the number expected."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.l0 < 0:
            raise SettingsError(f"method.<name>.l0={self.l0}: expected 0 or more")


@method("jola")
class GatedHeadEdits(Method):
    """Scales, shifts and gates of the heads train together: layers * (2 inputs + 2 heads) parameters, with the inputs
    of an output projection.

    Source: Lai et al. 2025 (arXiv 2502.01179). Scales and shifts start at 0 and gates half open, where their code draws
    all three; the price of open gates stays the same, where their code changes it from step to step.
    """

    settings = Jola
    adds_parts = True

    def located(self, settings: MethodSettings) -> bool:
        return isinstance(settings, Jola) and settings.located

    def layers_together(self, settings: MethodSettings) -> bool:
        return True

    def apply(self, ctx: Context, plan: EditPlan | None, settings: MethodSettings) -> AdaptedModel:
        assert isinstance(settings, Jola)
        runner = BlockRunner(ctx.copy_of_model())
        layers = plan.layers() if plan else range(runner.layers)
        edits = edit_heads(runner, layers, lambda _, projection: GatedHeads(projection, runner.heads)).values()

        def penalty() -> Tensor:
            return settings.l0 * torch.stack([edit.expected_open() for edit in edits]).sum()

        return AdaptedModel(
            self.name,
            runner.model,
            plan=plan,
            lr={"weights": settings.lr},
            start=min(layers),
            touched=sum(p.numel() for edit in edits for p in edit.base_layer.parameters()),
            penalty=penalty,
            fold=lambda: without_edits(runner.model),
        )


class GatedHeads(HeadEdit):
    """(1 + g_m m) z + g_a a, with vectors m and a and gates g_m and g_a of each head.

    Gates are hard concrete: drawn at each call while training, their deterministic value else.
    Source: Louizos et al. 2018 (arXiv 1712.01312), equations 10 to 13.
    """

    def __init__(self, projection: nn.Module, heads: int) -> None:
        super().__init__(projection, heads)
        self.change = self.zeros(2, heads, self.inputs // heads)
        """m and a."""
        self.log_alpha = self.zeros(2, heads)
        """How far the gates of both are open: 0 is half."""

    def gates(self) -> Float[Tensor, "2 head"]:
        """From 0, closed, to 1, open."""
        if self.training:
            uniform = MARGIN + (1 - 2 * MARGIN) * torch.rand_like(self.log_alpha)
            concrete = torch.sigmoid((uniform.logit() + self.log_alpha) / TEMPERATURE)
        else:
            concrete = torch.sigmoid(self.log_alpha)
        return (concrete * (HIGH - LOW) + LOW).clamp(0, 1)

    def expected_open(self) -> Float[Tensor, ""]:
        """How many gates are not 0 in expectation while training."""
        return torch.sigmoid(self.log_alpha - TEMPERATURE * math.log(-LOW / HIGH)).sum()

    def vectors(self) -> tuple[Float[Tensor, " inputs"], Float[Tensor, " inputs"]]:
        multiplied, added = (self.gates()[:, :, None] * self.change).flatten(1)
        return 1 + multiplied, added
