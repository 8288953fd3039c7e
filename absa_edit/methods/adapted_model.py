"""A model with the parameters that a method trains; the base model object stays as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import cast

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from transformers import PreTrainedModel

from absa_edit.data.prompts import Prompt
from absa_edit.methods.answer_head import AnswerHead
from absa_edit.methods.head_edit import HeadEdit
from absa_edit.methods.prefix_layout import by_block
from absa_edit.methods.reft import RepresentationEdit
from absa_edit.methods.settings import MethodSettings
from absa_edit.model.answer_logits import AnswerLogits
from absa_edit.model.block_runner import BlockRunner
from absa_edit.model.shared_prefix import PrefixKeys
from absa_edit.records import EditPlan

Positions = tuple[tuple[int, ...], ...]
"""Tokens by prompt, ascending."""


@dataclass(frozen=True)
class AdaptedModel:
    """A copy of the base model together with what trains in it."""

    kind: str
    """Name of the method that made it."""
    model: PreTrainedModel
    """The causal LM; with an adapter, its linear layers hold the deltas."""
    peft: PeftModel | None = None
    representation: RepresentationEdit | None = None
    plan: EditPlan | None = None
    """What trains, of a method that a plan tells."""
    lr: dict[str, float] = field(default_factory=dict)
    """Learning rate of `weights` and of `representation`."""
    start: int = 0
    """The first block that has to run: the states that enter it are the base model's (but for a representation edit
    of the block below)."""
    touched: int = 0
    """Entries of base weight matrices that change once the method is merged."""
    held: int = 0
    """Entries of trained tensors that stay 0: those of heads' adapters that read another head."""
    after_step: Callable[[int], None] | None = None
    """Called after each optimiser step with its number, from 1, while gradients are there: for adapters that change
    with training. What they know of the steps before is not in a checkpoint: such a fit is not resumed."""
    penalty: Callable[[], Tensor] | None = None
    """Added to the mean loss of each batch."""
    fold: Callable[[], PreTrainedModel] | None = None
    """Gives a plain copy of the model with what the method added in its weights; None where there is no way. Raises
    `CannotMerge` where there is none in this model."""
    settings: MethodSettings | None = None
    """Those of a method that adds parts to the model (`Method.adds_parts`), to make them again; None of others."""
    head: AnswerHead | None = None
    """Answers from the states of a block, in place of the blocks above it and the output layer."""
    content_free: tuple[Prompt, ...] = ()
    """Prompts that say nothing; where there are some, the labels' probabilities are divided by their mean over these.
    Source: Zhao et al. 2021 (arXiv 2102.09690)."""

    @property
    def rank(self) -> int | None:
        """The largest rank of a module's delta; None without an adapter."""
        return getattr(self.peft.peft_config["default"], "r", None) if self.peft else None

    @property
    def has_adapter(self) -> bool:
        """Whether what trained is kept beside the base model; else it is in the model's own weights."""
        return bool(self.peft or self.representation or self.settings)

    @cached_property
    def runner(self) -> BlockRunner:
        return BlockRunner(self.model)

    @property
    def prefixes_known(self) -> bool:
        """Whether nothing before an edited position can change: no weight trains, only the representation."""
        edit = self.representation
        return edit is not None and not edit.first and not any(p.requires_grad for p in self.model.parameters())

    @property
    def prefix(self) -> nn.Module | None:
        """PEFT's module with learned keys and values before all tokens; None without such a prefix."""
        if self.peft is None or not self.peft.peft_config["default"].is_prompt_learning:
            return None
        return self.peft.prompt_encoder["default"]

    def prefix_keys(self) -> PrefixKeys:
        """Those keys and values by block, as they are now; none without a prefix."""
        if self.prefix is None:
            return ()
        weights = self.prefix.get_parameter("embedding.weight").to(self.model.dtype)
        return by_block(weights, cast(PeftModel, self.peft).peft_config["default"])

    def positions(self, prompts: Sequence[Prompt]) -> Positions | None:
        """Where the representation edit acts in each prompt; None without one."""
        edit = self.representation
        return tuple(edit.at(prompt) for prompt in prompts) if edit else None

    def on(self, prompt: Prompt) -> AbstractContextManager[None]:
        """What has to surround the model's own runs over rows of `prompt`."""
        return self.representation.on(self.runner, prompt) if self.representation else nullcontext()

    def answers(
        self, prompts: Sequence[Prompt], words: Sequence[Sequence[int]], *, apart: bool = False
    ) -> AnswerLogits:
        """Prompts, each with an answer, ready to be asked of the model as it is edited.

        With `apart` the preamble that they share is computed once, and the model must not change any more.
        """
        return AnswerLogits(
            self.runner,
            [p.ids for p in prompts],
            words,
            edits=self.representation.state_edits(prompts) if self.representation else (),
            prefix=self.prefix_keys,
            preamble=min((p.preamble for p in prompts), default=0),
            apart=apart,
        )

    def trainable(self) -> dict[str, Tensor]:
        """Every trained parameter by name, ready to save: weights under their names, LoReFT under `representation.`,
        learned keys and values under `prefix.`, a head with all its tensors under `head.`"""
        names: dict[str, Tensor] = {n: p for n, p in self.model.named_parameters() if p.requires_grad}
        if self.prefix:
            names |= {f"prefix.{n}": p for n, p in self.prefix.named_parameters()}
        if self.representation:
            names |= {f"representation.{n}": p for n, p in self.representation.named_parameters()}
        if self.head:
            names |= {f"head.{n}": t for n, t in self.head.state_dict(keep_vars=True).items()}
        return names

    def parameter_groups(self) -> list[dict[str, object]]:
        """Parameters with their learning rates, as an optimiser takes them."""
        weights = [p for n, p in self.trainable().items() if not n.startswith("representation.")]
        groups: list[dict[str, object]] = [{"params": weights, "lr": self.lr["weights"]}] if weights else []
        if self.representation:
            parameters = list(self.representation.parameters())
            # Decay would pull W to 0, and not to R, where the edit changes nothing.
            groups.append({"params": parameters, "lr": self.lr["representation"], "weight_decay": 0.0})
        return groups

    def with_steps(self, after_step: Callable[[int], None], penalty: Callable[[], Tensor]) -> AdaptedModel:
        """This model, changed after each step and penalised so."""
        return replace(self, after_step=after_step, penalty=penalty)

    def count(self) -> int:
        """Number of trained parameters."""
        return sum(p.numel() for p in self.trainable().values() if p.requires_grad) - self.held

    def load_trained(self, state: dict[str, Tensor]) -> None:
        """Put saved trained parameters back; every one must be there."""
        trainable = self.trainable()
        if trainable.keys() != state.keys():
            odd = sorted(trainable.keys() ^ state.keys())[0]
            raise KeyError(f"trained parameters do not match those of the method: {odd}")
        with torch.no_grad():
            for name, parameter in trainable.items():
                parameter.copy_(state[name])

    def modes(self, training: bool) -> None:
        """Evaluation mode, except that while training dropout acts where weights train, and gates are drawn.

        A frozen part must not drop anything: its cached states would not be those of the run.
        """
        self.model.eval()
        if not training:
            return
        if self.start < 0:  # everything trains
            self.model.train()
        for layer in self.model.modules():
            if isinstance(layer, HeadEdit):
                layer.training = True
            if isinstance(layer, BaseTunerLayer):
                # some adapters have no module for it, and look at their own mode
                by_mode = (getattr(layer, name, {}) for name in ("rank_dropout", "module_dropout"))
                layer.training = any(any(shares.values()) for shares in by_mode)
                for name, module in layer.named_modules():
                    if "dropout" in name and isinstance(module, nn.Dropout) and "base_layer" not in name:
                        module.train()


def changed_elsewhere(adapted: AdaptedModel, base: PreTrainedModel) -> Iterator[str]:
    """Names of base parameters that differ in any bit though the method does not train them."""
    trained = set(adapted.trainable())
    current = {
        name.replace(".base_layer.", "."): (name, parameter) for name, parameter in adapted.model.named_parameters()
    }
    for name, parameter in base.named_parameters():
        adapted_name, value = current[name]
        if adapted_name not in trained and not torch.equal(value, parameter.to(value.dtype)):
            yield name
