"""Rank-limited deltas on the located component outputs, and LoReFT at the aspect where it is asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from peft import LoraConfig, PeftModel, TaskType
from torch import nn

from absa_edit.context import Context
from absa_edit.errors import PlanError, SettingsError
from absa_edit.methods.adapted_model import AdaptedModel
from absa_edit.methods.base import Method, method
from absa_edit.methods.peft_adapter import transposed, with_adapters
from absa_edit.methods.reft import Place, RepresentationEdit, check_rank, read_by_answers
from absa_edit.methods.settings import LocatedSettings, MethodSettings
from absa_edit.model.block_runner import BlockRunner
from absa_edit.records import EditPlan, Role


@dataclass
class Edit(LocatedSettings):
    """Rank-limited deltas on the located component outputs."""

    lr: float = 2e-3
    alpha: float = 8.0
    """The delta is scaled by alpha / rank, the same at every site."""
    rslora: bool = False
    """Scale it by alpha / sqrt(rank) instead. Source: Kalajdzievski 2023 (arXiv 2312.03732)."""
    dropout: float = 0.0
    weights: bool = True
    """Train the deltas; false leaves the representation edit alone."""
    representation: bool = False
    """Add LoReFT on the residual stream of the located layers, at `position`."""
    representation_rank: int = 4
    representation_lr: float = 2e-3
    position: Role = Role.aspect_again
    """The last token with this role is edited. Source: arXiv 2503.15117, official code."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.weights or self.representation):
            raise SettingsError("method: an edit with weights=false and representation=false trains nothing")


@method("edit")
class LowRankEdit(Method):
    """Deltas of limited rank on the output projections, or single heads, that the plan names."""

    settings = Edit
    needs_plan = True
    adapter = True

    def layers_together(self, settings: MethodSettings) -> bool:
        return isinstance(settings, Edit) and settings.representation

    def linear_in(self, settings: MethodSettings) -> str | None:
        return "lora_B" if isinstance(settings, Edit) and not settings.representation else None

    def check(self, runner: BlockRunner, plan: EditPlan | None, settings: MethodSettings) -> None:
        assert isinstance(settings, Edit)
        if settings.representation:
            check_rank(runner, settings.representation_rank, "method.edit.representation_rank")
            if plan and not _place(runner, settings, plan).layers:
                raise PlanError(f"nothing reads the last block at {settings.position.value}; edit an earlier layer")

    def apply(self, ctx: Context, plan: EditPlan | None, settings: MethodSettings) -> AdaptedModel:
        assert isinstance(settings, Edit) and plan is not None  # needs_plan
        model = ctx.copy_of_model()
        runner = BlockRunner(model)
        lr: dict[str, float] = {}
        inside, touched, held, start = None, 0, 0, runner.layers
        if settings.weights:
            inside, touched, held = _deltas(runner, settings, plan)
            start, lr["weights"] = min(plan.layers()), settings.lr
        representation = None
        if settings.representation:
            representation = _representation(runner, settings, plan).to(model.device)
            start, lr["representation"] = min(start, representation.layers[0] + 1), settings.representation_lr
        return AdaptedModel(
            self.name, model, inside, representation, plan, lr=lr, start=start, touched=touched, held=held
        )


def _deltas(runner: BlockRunner, settings: Edit, plan: EditPlan) -> tuple[PeftModel, int, int]:
    """Rank-limited deltas at the plan's sites; entries of weights that they change, and of their own held at 0.

    Sites that share a projection (heads of a layer) share an adapter, stacked: its rank is the sum of theirs.
    """
    by_path: dict[str, list[tuple[int, slice]]] = {}
    for target in plan.targets:
        by_path.setdefault(runner.path(target.site), []).append((target.rank, runner.inputs(target.site)))
    paths = {path: sum(rank for rank, _ in blocks) for path, blocks in by_path.items()}
    touched = sum(math.prod(runner.shape(t.site)) for t in plan.targets)
    rank = max(paths.values())
    divisor: Callable[[float], float] = math.sqrt if settings.rslora else float  # of alpha, from a rank
    scale = settings.alpha / divisor(max(t.rank for t in plan.targets))
    config = LoraConfig(
        r=rank,
        lora_alpha=scale * divisor(rank),  # type: ignore[arg-type]
        use_rslora=settings.rslora,
        lora_dropout=settings.dropout,
        target_modules=list(paths),
        rank_pattern={path: r for path, r in paths.items() if r != rank},
        # One scale at all sites: vLLM reads only the global alpha / r and drops the patterns without a word.
        alpha_pattern={path: scale * divisor(r) for path, r in paths.items() if r != rank},
        task_type=TaskType.CAUSAL_LM,
        fan_in_fan_out=transposed(runner.model, paths),
    )
    inside = with_adapters(runner.model, config, expected=len(paths))
    held = sum(
        mask_to_heads(runner.model.get_parameter(f"{path}.lora_A.default.weight"), blocks)
        for path, blocks in by_path.items()
    )
    return inside, touched, held


def _representation(runner: BlockRunner, settings: Edit, plan: EditPlan) -> RepresentationEdit:
    """LoReFT on the plan's layers."""
    width, rank = runner.model.config.hidden_size, settings.representation_rank
    return RepresentationEdit([_place(runner, settings, plan)], width, rank)


def _place(runner: BlockRunner, settings: Edit, plan: EditPlan) -> Place:
    """Where LoReFT acts: in the plan's layers, of which answers read."""
    at_last = settings.position is Role.last
    return Place(read_by_answers(plan.layers(), runner.layers - 1, at_last=at_last), settings.position)


def mask_to_heads(down: nn.Parameter, blocks: Sequence[tuple[int, slice]]) -> int:
    """Keep an adapter's A (rank x inputs) at 0 outside of `blocks`; returns the number of entries kept there.

    Each block is a number of rows, dealt from the top, and the inputs that they read. What they read starts as an
    adapter of those inputs alone would; a block of all inputs is left as it is. The others get no gradient, so that
    no optimiser moves them, and the product B A is exactly 0 for the inputs that no block reads.
    """
    free = torch.zeros(down.shape, dtype=torch.bool)  # looked at before it goes to a device, which may be meta
    first = 0
    for rows, inputs in blocks:
        free[first : first + rows, inputs] = True
        first += rows
    if free.all():
        return 0
    free = free.to(down.device)
    with torch.no_grad():
        # PEFT draws A uniformly up to 1 / sqrt(inputs): here the inputs are those that a row reads.
        down.mul_(math.sqrt(down.shape[1]) / free.sum(1, keepdim=True).sqrt()).mul_(free)
    down.register_hook(lambda gradient: gradient * free)
    return int((~free).sum())
