"""LoRA on all linear layers of all blocks."""

from __future__ import annotations

from dataclasses import dataclass

from peft import LoraConfig, TaskType

from absa_edit.context import Context
from absa_edit.methods.adapted_model import AdaptedModel
from absa_edit.methods.base import Method, method
from absa_edit.methods.peft_adapter import linear_layers, transposed, with_adapters
from absa_edit.methods.settings import MethodSettings
from absa_edit.model.block_runner import BlockRunner
from absa_edit.records import EditPlan


@dataclass
class Lora(MethodSettings):
    """PEFT LoRA on all linear layers of all blocks."""

    lr: float = 1e-3
    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0


@method("lora")
class LoraEverywhere(Method):
    """Source: Hu et al. 2021 (arXiv 2106.09685), on every linear layer as Dettmers et al. 2023 advise."""

    settings = Lora
    adapter = True

    def linear_in(self, settings: MethodSettings) -> str:
        return "lora_B"

    def apply(self, ctx: Context, plan: EditPlan | None, settings: MethodSettings) -> AdaptedModel:
        assert isinstance(settings, Lora)
        runner = BlockRunner(ctx.copy_of_model())
        paths = linear_layers(runner)
        touched = sum(runner.model.get_submodule(path).get_parameter("weight").numel() for path in paths)
        config = LoraConfig(
            r=settings.rank,
            lora_alpha=settings.alpha,  # type: ignore[arg-type]
            lora_dropout=settings.dropout,
            target_modules=paths,
            task_type=TaskType.CAUSAL_LM,
            fan_in_fan_out=transposed(runner.model, paths),
        )
        inside = with_adapters(runner.model, config, expected=len(paths))
        lr = {"weights": settings.lr}
        return AdaptedModel(self.name, runner.model, inside, lr=lr, start=0, touched=touched)
