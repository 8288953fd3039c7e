"""What a method is: it says what trains in a copy of the base model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import ClassVar, TypeVar, cast

import torch
from transformers import PreTrainedModel

from absa_edit.context import Context
from absa_edit.data.settings import PromptSettings
from absa_edit.errors import PlanError, SettingsError
from absa_edit.methods.adapted_model import AdaptedModel
from absa_edit.methods.settings import METHODS, MethodSettings
from absa_edit.model.block_runner import BlockRunner
from absa_edit.records import EditPlan

M = TypeVar("M", bound="type[Method]")
Rounds = Iterator[dict[str, float]]
"""Figures by name, after each round of a fit."""


class Method(ABC):
    """Makes an adapted model of a copy of the base model; what is exported of it, the adapted model says itself."""

    name: ClassVar[str]
    """Under which it is registered."""
    settings: ClassVar[type[MethodSettings]]
    trains: ClassVar[bool] = True
    """Whether there is anything to fit."""
    needs_plan: ClassVar[bool] = False
    """Whether it always trains what a plan names; then its settings are `LocatedSettings`."""
    adapter: ClassVar[bool] = False
    """Whether an adapter can be exported, besides or instead of a merged checkpoint."""
    adds_parts: ClassVar[bool] = False
    """Whether it adds to the model what neither a checkpoint nor PEFT holds. Its export is then its settings, its plan
    and the trained parameters, of which `absa_edit.load` makes the model again by `apply`: from a context without data,
    so that all that tells the model from its base has to be in one of the three."""
    chooses: ClassVar[bool] = False
    """Whether it chooses sites by itself. They are the plan of what it gives, with its name as the source; given that
    plan, it does not choose again."""

    @abstractmethod
    def apply(self, ctx: Context, plan: EditPlan | None, settings: MethodSettings) -> AdaptedModel:
        """A copy of the base model (`ctx.copy_of_model()`) with what trains in it; untrained, it answers like the base.

        What trains is float32, whatever the base's dtype (AdamW's small steps would be lost). Random first weights come
        from torch's generator, which is seeded here. Raises `PlanError` for a plan that cannot be trained.
        """

    def rounds(
        self, ctx: Context, adapted: AdaptedModel, settings: MethodSettings
    ) -> Iterator[dict[str, float]] | None:
        """How a method fits itself, which then is not resumed: a row after each change of what `apply` made.

        A row holds the training `loss` and what else is worth keeping, by name; development scores are put beside it,
        and the best one's state is kept. None is for the loop that all methods share.
        """
        return None

    def linear_in(self, settings: MethodSettings) -> str | None:
        """Part of the names of trained tensors in which the change of the model's weights is linear; "" is all.

        None where there are none: `scale=true` is then refused.
        """
        return None

    def prompt(self, ctx: Context, settings: MethodSettings) -> PromptSettings | None:
        """How the model is asked, of a method that trains nothing; None is as the run asks."""
        return None

    def located(self, settings: MethodSettings) -> bool:
        """Whether it trains what a plan names."""
        return self.needs_plan

    def check(self, runner: BlockRunner, plan: EditPlan | None, settings: MethodSettings) -> None:  # noqa: B027
        """Raise what `apply` would raise for this model and plan; a run asks for all methods before anything trains.

        A located method is asked twice: as the run begins, when the plan is not known yet (None), and with its plan.
        """

    def layers_together(self, settings: MethodSettings) -> bool:
        """Whether a control must move whole layers, for its budget to be this method's."""
        return False


def method(name: str) -> Callable[[M], M]:
    """A decorator that registers a method: `@method("bitfit")`."""

    def register(kind: M) -> M:
        kind.name = name
        return cast("M", METHODS(name)(kind))

    return register


def method_of(settings: MethodSettings) -> Method:
    """The method that these are the settings of."""
    kinds = (METHODS[name] for name in METHODS)
    instance: Method = next(kind for kind in kinds if kind.settings is type(settings))()
    return instance


def check_scale(settings: MethodSettings) -> None:
    """Raises `SettingsError` where a scale is asked for that cannot be."""
    chosen = method_of(settings)
    if settings.scale and (not chosen.trains or chosen.linear_in(settings) is None):
        why = "is linear in none of its tensors" if chosen.trains else "does not exist: it trains nothing"
        raise SettingsError(
            f"method.<name>.scale=true: what {chosen.name} changes with these settings {why}; take scale=false"
        )


def adapt(ctx: Context, settings: MethodSettings, plan: EditPlan | None) -> AdaptedModel:
    """What the method of these settings trains, on a copy of the base model; the run's seed draws first weights.

    A method that trains no plan's sites is given none but its own. Raises what `check` does.
    """
    chosen = method_of(settings)
    check(ctx.lm.runner, settings, plan)
    chosen_before = chosen.chooses and plan is not None and plan.source == chosen.name
    given = plan if chosen.located(settings) or chosen_before else None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(ctx.settings.seed)
        adapted = chosen.apply(ctx, given, settings)
    return replace(adapted, settings=settings) if chosen.adds_parts else adapted


def check(runner: BlockRunner, settings: MethodSettings, plan: EditPlan | None) -> None:
    """Raise what keeps the method of these settings from training this model where the plan says.

    A `PlanError` when it needs a plan and has none.
    """
    chosen = method_of(settings)
    check_scale(settings)
    if chosen.located(settings) and plan is None:
        raise PlanError(f"method {chosen.name} needs a plan: add `locate` to stages")
    chosen.check(runner, plan, settings)


def first_block(model: PreTrainedModel) -> int:
    """The first block that has to run where what trains in `model` changes; -1 where the embeddings train."""
    runner = BlockRunner(model)
    prefix, lowest_block = f"{runner.layout.blocks}.", runner.layers
    embeddings = {id(p) for p in model.get_input_embeddings().parameters()}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if name.startswith(prefix):
            lowest_block = min(lowest_block, int(name.removeprefix(prefix).split(".")[0]))
        elif id(parameter) in embeddings or "embed" in name:
            return -1
    return lowest_block
