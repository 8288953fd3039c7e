"""One factor for what each located component gives."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from absa_edit.context import Context
from absa_edit.errors import PlanError, SettingsError
from absa_edit.methods.adapted_model import AdaptedModel
from absa_edit.methods.base import Method, Rounds, method
from absa_edit.methods.label_logits import LabelLogits, first_tokens
from absa_edit.methods.settings import LocatedSettings, MethodSettings
from absa_edit.model.block_runner import BlockRunner
from absa_edit.records import EditPlan

STEPS = 4
"""Steps of L-BFGS in a round, each with its line search."""


@dataclass
class Amplify(LocatedSettings):
    """A factor for each located component."""

    lr: float = 0.0
    rounds: int = 4
    """After each of them the factors are scored on development data."""
    on: str = "dev"
    """The data whose log-loss the factors make least: `dev`, or `train`, which is larger and leaves dev to choose."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.on not in ("dev", "train"):
            raise SettingsError(f"method.<name>.on={self.on}: expected dev or train")
        if self.rounds < 1:
            raise SettingsError(f"method.<name>.rounds={self.rounds}: expected at least 1")


@method("amplify")
class Amplified(Method):
    """Factors, one a component, of what it adds to the residual stream: as many parameters as the plan has sites.

    They start at 1, are found by L-BFGS and are folded into the weights: those of the output projection, or of the norm
    behind it in models that have one there, which would undo a factor before it.
    After Li et al. 2026, who scale features of a sentiment circuit while the model runs.
    """

    settings = Amplify
    needs_plan = True

    def check(self, runner: BlockRunner, plan: EditPlan | None, settings: MethodSettings) -> None:
        if heads := [t.site for t in plan.targets if t.site.index is not None] if plan else []:
            raise PlanError(f"{heads[0]}: method {self.name} scales all heads of a layer together; take attn or mlp")

    def linear_in(self, settings: MethodSettings) -> str:
        return ""

    def apply(self, ctx: Context, plan: EditPlan | None, settings: MethodSettings) -> AdaptedModel:
        assert plan is not None  # needs_plan
        first_tokens(ctx)  # or it cannot be fitted
        model = ctx.copy_of_model()
        runner, touched = BlockRunner(model), 0
        for target in plan.targets:
            path = runner.path_of_added(target.site.layer, target.site.part)
            component = model.get_submodule(path)
            touched += sum(p.numel() for p in component.parameters())
            model.set_submodule(path, Gain(component).eval())
        start = min(plan.layers())
        return AdaptedModel(
            self.name, model, plan=plan, start=start, touched=touched, fold=lambda: without_gains(model)
        )

    def rounds(self, ctx: Context, adapted: AdaptedModel, settings: MethodSettings) -> Rounds:
        assert isinstance(settings, Amplify)
        data = LabelLogits(ctx, adapted, getattr(ctx.splits, settings.on))
        size = ctx.settings.fit.batch_size
        batches = [batch[i : i + size] for batch in data.batches for i in range(0, len(batch), size)]
        optimizer = torch.optim.LBFGS(list(adapted.trainable().values()), max_iter=STEPS, line_search_fn="strong_wolfe")

        def loss() -> float:
            optimizer.zero_grad()
            return sum(_backward(data, batch) for batch in batches)

        for _ in range(settings.rounds):
            yield {"loss": float(cast(float, optimizer.step(loss)))}


def _backward(data: LabelLogits, batch: Sequence[int]) -> float:
    """The share that some examples have in the mean loss; its gradients are added to those there are."""
    with torch.enable_grad():
        share = cross_entropy(data(batch), data.gold_of(batch), reduction="sum") / len(data.gold)
        share.backward()
    return float(share.detach())


class Gain(nn.Module):
    """A component, with a factor for what it gives."""

    def __init__(self, component: nn.Module) -> None:
        super().__init__()
        self.base_layer = component
        self.gain = nn.Parameter(torch.ones((), device=next(component.parameters()).device))

    @property
    def weight(self) -> Tensor:
        """The component's."""
        return cast(Tensor, self.base_layer.weight)

    def forward(self, states: Float[Tensor, "*row _"]) -> Float[Tensor, "*row _"]:
        given = self.base_layer(states)
        return cast(Tensor, (self.gain * given.float()).to(given.dtype))

    @torch.no_grad()
    def folded(self) -> nn.Module:
        """The component alone, with the factor in its weight and bias; multiplied in float32."""
        plain = copy.deepcopy(self.base_layer)
        shift = 1.0 if _adds_one(plain) else 0.0
        for name, parameter in plain.named_parameters():
            unit = shift if name == "weight" else 0.0
            parameter.copy_(self.gain * (parameter.float() + unit) - unit)
        return plain


@torch.no_grad()
def _adds_one(component: nn.Module) -> bool:
    """Whether it multiplies by 1 + weight, as Gemma's norms do."""
    weight = cast(Tensor, component.weight)
    if weight.ndim > 1:
        return False
    alone = copy.deepcopy(component)
    cast(Tensor, alone.weight).zero_()
    return bool(alone(torch.ones_like(weight)[None]).any())


def without_gains(model: PreTrainedModel) -> PreTrainedModel:
    """A plain copy of the model with the factors in its weights."""
    plain = copy.deepcopy(model)
    for path, module in model.named_modules():
        if isinstance(module, Gain):
            plain.set_submodule(path, module.folded())
    return plain.requires_grad_(False)
