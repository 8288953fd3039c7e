"""Prefix tuning: learned keys and values before every prompt."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import cycle, islice

import torch
from peft import PrefixTuningConfig, TaskType

from absa_edit.context import Context
from absa_edit.errors import SettingsError
from absa_edit.methods.adapted_model import AdaptedModel
from absa_edit.methods.base import Method, method
from absa_edit.methods.peft_adapter import with_adapters
from absa_edit.methods.prefix_layout import in_rows
from absa_edit.methods.settings import MethodSettings
from absa_edit.model.attention_adapters import adapted as own_attention
from absa_edit.model.block_runner import BlockRunner
from absa_edit.model.shared_prefix import PrefixKeys, prefix_keys
from absa_edit.records import EditPlan


@dataclass
class Prefix(MethodSettings):
    """Keys and values before every prompt."""

    lr: float = 2e-2
    tokens: int = 8
    """How many stand before a prompt; its own tokens move by as many positions."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tokens < 1:
            raise SettingsError(f"method.<name>.tokens={self.tokens}: expected 1 or more")


@method("prefix")
class LearnedPrefix(Method):
    """tokens * 2 * key-value heads * head width parameters in each block, without reparametrisation.

    They start as the keys and values of the words of the prompt's template, repeated: untrained, the model answers as
    the base after these words. Source: Li and Liang 2021 (arXiv 2101.00190); section 7.4 on the first values.
    """

    settings = Prefix
    adapter = True

    def check(self, runner: BlockRunner, plan: EditPlan | None, settings: MethodSettings) -> None:
        assert isinstance(settings, Prefix)
        if own_attention(runner.model):
            raise SettingsError(
                f"method {self.name}: {type(runner.model).__name__} has attention of its own, which takes no keys and "
                "values besides its tokens'; take another method"
            )

    def apply(self, ctx: Context, plan: EditPlan | None, settings: MethodSettings) -> AdaptedModel:
        assert isinstance(settings, Prefix)
        runner = BlockRunner(ctx.copy_of_model())
        keys = first_keys(ctx, runner, settings.tokens)
        _, heads, _, width = keys[0][0].shape
        config = PrefixTuningConfig(
            task_type=TaskType.CAUSAL_LM,
            num_virtual_tokens=settings.tokens,
            num_layers=runner.layers,
            num_attention_heads=heads,
            token_dim=heads * width,
        )
        inside = with_adapters(runner.model, config, expected=None)
        adapted = AdaptedModel(self.name, runner.model, inside, lr={"weights": settings.lr})
        adapted.load_trained({"prefix.embedding.weight": in_rows(keys)})
        return adapted


def first_keys(ctx: Context, runner: BlockRunner, tokens: int) -> PrefixKeys:
    """Keys and values of so many tokens of the prompt's template."""
    prompt = ctx.settings.prompt
    words = prompt.template.replace("{sentence}", "").replace("{aspect}", "")
    ids = [*islice(cycle(ctx.lm.tokenizer(words, add_special_tokens=False)["input_ids"]), tokens)]
    embeds = runner.embed(torch.tensor([ids], device=runner.device))
    return prefix_keys(runner, embeds, runner.reach(tokens))
