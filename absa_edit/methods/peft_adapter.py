"""Any adapter that PEFT knows, by the class name of its configuration: `config: IA3Config`, `options: {...}`.

DoRA, rsLoRA, IA3, VeRA, OFT, LoHa, LN-tuning and AdaLoRA are YAML files in `conf/method`. What PEFT can merge is
merged; what it cannot is exported as an adapter alone.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import peft
import torch
from peft import PeftConfig, PeftModel, TaskType, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from transformers import PreTrainedModel

from absa_edit.context import Context
from absa_edit.errors import PlanError, SettingsError
from absa_edit.methods.adapted_model import AdaptedModel
from absa_edit.methods.base import Method, first_block, method
from absa_edit.methods.settings import LocatedSettings, MethodSettings
from absa_edit.model.block_runner import BlockRunner
from absa_edit.records import EditPlan, Part

LINEAR, OWN, PLAN = "linear", "peft", "plan"


LINEAR_IN = {
    "LoraConfig": "lora_B",
    "AdaLoraConfig": "lora_E",
    "IA3Config": "ia3_l",
    "VeraConfig": "vera_lambda_b",
    "LoHaConfig": "hada_w2_b",
    "LNTuningConfig": "",
}
"""By configuration, the tensors whose distance from where they started the change of the weights is linear in."""
NOT_LINEAR = {"use_dora", "init_lora_weights", "init_weights", "bias", "modules_to_save"}
"""Options with which it is not, or which train something else besides."""


@dataclass
class PeftAdapter(LocatedSettings):
    """An adapter of PEFT's."""

    lr: float = 1e-3
    config: str = "LoraConfig"
    """Name of a configuration class of peft."""
    targets: list[str] = field(default_factory=lambda: [LINEAR])
    """Modules that take an adapter: `[linear]` all linear layers of all blocks, `[plan]` the output projections that
    the plan names, `[peft]` what PEFT chooses for the family, or ends of module names."""
    options: dict[str, Any] = field(default_factory=dict)
    """Further fields of the configuration."""

    def __post_init__(self) -> None:
        super().__post_init__()
        kind = getattr(peft, self.config, None)
        if not (isinstance(kind, type) and issubclass(kind, PeftConfig)):
            known = sorted(n for n in dir(peft) if n.endswith("Config") and n != "PeftConfig")
            raise SettingsError(
                f"method.<name>.config={self.config}: no such class in peft; there are {', '.join(known)}"
            )
        if odd := sorted(set(self.options) - set(kind.__dataclass_fields__)):
            raise SettingsError(f"method.<name>.options: {self.config} has no field {odd[0]!r}")


@method("peft_adapter")
class AnyAdapter(Method):
    """The adapter of a configuration class."""

    settings = PeftAdapter
    adapter = True

    def located(self, settings: MethodSettings) -> bool:
        return isinstance(settings, PeftAdapter) and settings.targets == [PLAN]

    def linear_in(self, settings: MethodSettings) -> str | None:
        assert isinstance(settings, PeftAdapter)
        return None if NOT_LINEAR & set(settings.options) else LINEAR_IN.get(settings.config)

    def check(self, runner: BlockRunner, plan: EditPlan | None, settings: MethodSettings) -> None:
        assert isinstance(settings, PeftAdapter)
        if settings.targets != [OWN] and not self.located(settings):
            _targets(runner, plan, settings.targets)

    def apply(self, ctx: Context, plan: EditPlan | None, settings: MethodSettings) -> AdaptedModel:
        assert isinstance(settings, PeftAdapter)
        runner = BlockRunner(ctx.copy_of_model())
        config = self._config(ctx, runner, plan, settings)
        inside = with_adapters(runner.model, config, expected=None)
        layers = [m for m in runner.model.modules() if isinstance(m, BaseTunerLayer)]
        if not layers or not any(p.requires_grad for p in runner.model.parameters()):
            raise SettingsError(
                f"method.<name>.config={settings.config} trains nothing inside the model's blocks (prompts and "
                "prefixes are no adapters of modules); choose another"
            )
        touched = sum(p.numel() for layer in layers for p in base_parameters(layer))
        adapted = AdaptedModel(
            self.name,
            runner.model,
            inside,
            plan=plan,
            lr={"weights": settings.lr},
            start=first_block(runner.model),
            touched=touched,
        )
        return _allocating(adapted, config) if hasattr(inside.base_model, "update_and_allocate") else adapted

    def _config(self, ctx: Context, runner: BlockRunner, plan: EditPlan | None, settings: PeftAdapter) -> PeftConfig:
        kind = getattr(peft, settings.config)
        fields = kind.__dataclass_fields__
        options: dict[str, Any] = {**settings.options, "task_type": TaskType.CAUSAL_LM}
        if "total_step" in fields and "total_step" not in options:
            fit, examples = ctx.settings.fit, len(ctx.splits.train.examples)
            options["total_step"] = -(-examples // fit.batch_size) * fit.epochs
        if settings.targets != [OWN]:
            options["target_modules"] = _targets(runner, plan, settings.targets)
            if "fan_in_fan_out" in fields:
                options["fan_in_fan_out"] = transposed(runner.model, options["target_modules"])
        try:
            return cast(PeftConfig, kind(**options))
        except (TypeError, ValueError) as error:
            raise SettingsError(f"method.<name>.options: {settings.config}: {str(error).splitlines()[0]}") from None


def _targets(runner: BlockRunner, plan: EditPlan | None, targets: Sequence[str]) -> list[str]:
    """Full paths of the modules that take an adapter. Raises `SettingsError` when there is none."""
    if targets == [LINEAR]:
        return linear_layers(runner)
    if targets == [PLAN] and plan is not None:
        return list(dict.fromkeys(runner.layout.path(t.site) for t in plan.targets))
    inside = runner.layout.blocks + "."
    names = [name for name, _ in runner.model.named_modules() if name.startswith(inside)]
    matches = [name for name in names if any(name.endswith(f".{end}") for end in targets)]
    if not matches:
        raise SettingsError(f"method.<name>.targets={list(targets)}: no module of the model's blocks ends so")
    return matches


def linear_layers(runner: BlockRunner) -> list[str]:
    """Paths of every linear layer of every block; the head and the embeddings are left alone, as PEFT does.

    In a model of experts those of attention alone: PEFT takes the name of any other for the experts' stacked weights.
    """
    attention = (runner.layout.attn, *runner.layout.asking)
    return [
        f"{runner.layout.blocks}.{name}"
        for name, module in runner.blocks.named_modules()
        if (isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D")
        and (runner.has(Part.mlp) or name.partition(".")[2] in attention)
    ]


def with_adapters(model: PreTrainedModel, config: PeftConfig, *, expected: int | None) -> PeftModel:
    """The model with the adapters of `config` inside.

    Raises `PlanError` when fewer modules than `expected` took one: a target that matches nothing is an error;
    `SettingsError` when PEFT refuses.
    """
    try:
        with _without_warnings():
            inside = get_peft_model(model, config).eval()  # its own dropout would act in what is never trained here
    except (ValueError, TypeError, NotImplementedError) as error:
        raise SettingsError(f"{type(config).__name__}: {str(error).splitlines()[0]}") from error
    adapters = sum(isinstance(module, BaseTunerLayer) for module in model.modules())
    if expected is not None and adapters != expected:
        raise PlanError(f"the plan names {expected} modules, PEFT found {adapters} of them in the model")
    return inside


def load_adapter(model: PreTrainedModel, folder: Path) -> PeftModel:
    """The adapter in `folder`, inside `model`, as peft alone loads it; it answers, and does not train."""
    with _without_warnings():
        inside = PeftModel.from_pretrained(model, folder)
    return inside.eval().requires_grad_(False)


@contextmanager
def _without_warnings() -> Iterator[None]:
    """peft 0.21 reads an old name of transformers' and knows norms by torch's classes alone: nothing to do about it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Unsupported layer type .*Norm", UserWarning)
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        yield


def transposed(model: PreTrainedModel, paths: Iterable[str]) -> bool:
    """Whether the modules keep their weights as (inputs, outputs), as GPT-2's do."""
    return any(type(model.get_submodule(path)).__name__ == "Conv1D" for path in paths)


def base_parameters(layer: BaseTunerLayer) -> Iterator[Tensor]:
    """The base model's own parameters in a module that took an adapter, biases left out."""
    base = layer.get_base_layer()
    yield from (p for name, p in base.named_parameters() if not name.endswith("bias"))


def _allocating(adapted: AdaptedModel, config: Any) -> AdaptedModel:
    """AdaLoRA: the budget moves between modules after each step, and A and B are kept near orthonormal.

    What the allocation prunes is 0 from then on; the saved adapter keeps all ranks, so that the best epoch's weights
    are saved whole, whichever it was. Source: Zhang et al. 2023 (arXiv 2303.10512), equations 4 and 8 to 11.
    """
    inside = cast(PeftModel, adapted.peft)
    pattern: dict[str, Any] = {}

    def after_step(step: int) -> None:
        nonlocal pattern
        config.rank_pattern = pattern
        cast(Any, inside.base_model).update_and_allocate(step)
        pattern, config.rank_pattern = config.rank_pattern or {}, {}

    def penalty() -> Tensor:
        named = adapted.model.named_parameters()
        pairs = [(p if "lora_A" in name else p.T) for name, p in named if "lora_A" in name or "lora_B" in name]
        gaps = [torch.linalg.matrix_norm(p @ p.T - torch.eye(len(p), device=p.device)) for p in pairs]
        return cast(Tensor, config.orth_reg_weight * torch.stack(gaps).mean())

    return adapted.with_steps(after_step, penalty)
