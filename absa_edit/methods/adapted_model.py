"""A model with the parameters that a method trains; the base model object stays as it was."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from absa_edit.data.prompts import Prompt
from absa_edit.methods.reft import RepresentationEdit
from absa_edit.model.answer_logits import AnswerLogits
from absa_edit.model.block_runner import BlockRunner
from absa_edit.records import EditPlan


@dataclass(frozen=True)
class AdaptedModel:
    """A copy of the base model together with what trains in it."""

    kind: str
    """zero_shot, edit, delta, lora or full."""
    model: PreTrainedModel
    """The causal LM; with an adapter, its linear layers hold the deltas."""
    peft: PeftModel | None
    representation: RepresentationEdit | None
    plan: EditPlan | None
    lr: dict[str, float]
    """Learning rate of `weights` and of `representation`."""
    start: int
    """The first block that has to run: the states that enter it are the base model's (but for a representation edit
    of the block below)."""
    touched: int
    """Entries of base weight matrices that change once the method is merged."""
    held: int = 0
    """Entries of trained tensors that stay 0: those of heads' adapters that read another head."""

    @property
    def rank(self) -> int | None:
        """The largest rank of a module's delta; None without an adapter."""
        return self.peft.peft_config["default"].r if self.peft else None  # type: ignore[attr-defined]

    @property
    def runner(self) -> BlockRunner:
        return BlockRunner(self.model)

    @property
    def prefixes_known(self) -> bool:
        """Whether nothing before an edited position can change: no weight trains, only the representation."""
        return self.representation is not None and not any(p.requires_grad for p in self.model.parameters())

    def positions(self, prompts: Sequence[Prompt]) -> list[int] | None:
        """Where the representation edit acts in each prompt; None without one."""
        edit = self.representation
        return [edit.at(prompt) for prompt in prompts] if edit else None

    def on(self, prompt: Prompt) -> AbstractContextManager[None]:
        """What has to surround the model's own runs over rows of `prompt`."""
        return self.representation.on(self.runner, prompt) if self.representation else nullcontext()

    def answers(self, prompts: Sequence[Prompt], words: Sequence[Sequence[int]]) -> AnswerLogits:
        """Prompts, each with an answer, ready to be asked of the model as it is edited."""
        edits = self.representation.by_layer() if self.representation else {}
        return AnswerLogits(self.runner, [p.ids for p in prompts], words, edits=edits, at=self.positions(prompts))

    def trainable(self) -> dict[str, Tensor]:
        """Every trained parameter by name, ready to save: weights under their names, LoReFT under `representation.`"""
        names: dict[str, Tensor] = {n: p for n, p in self.model.named_parameters() if p.requires_grad}
        if self.representation:
            names |= {f"representation.{n}": p for n, p in self.representation.named_parameters()}
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

    def count(self) -> int:
        """Number of trained parameters."""
        return sum(p.numel() for p in self.trainable().values()) - self.held

    def load_trained(self, state: dict[str, Tensor]) -> None:
        """Put saved trained parameters back; every one must be there."""
        own = self.trainable()
        if own.keys() != state.keys():
            odd = sorted(own.keys() ^ state.keys())[0]
            raise KeyError(f"trained parameters do not match those of the method: {odd}")
        with torch.no_grad():
            for name, parameter in own.items():
                parameter.copy_(state[name])

    def modes(self, training: bool) -> None:
        """Evaluation mode, except that while training dropout acts where weights train.

        A frozen part must not drop anything: its cached states would not be those of the run.
        """
        self.model.eval()
        if not training:
            return
        if self.kind == "full":
            self.model.train()
        for name, module in self.model.named_modules():
            if "lora_dropout" in name and isinstance(module, nn.Dropout):
                module.train()


def changed_elsewhere(adapted: AdaptedModel, base: PreTrainedModel) -> Iterator[str]:
    """Names of base parameters that differ in any bit though the method does not train them."""
    trained = set(adapted.trainable())
    current = {
        name.replace(".base_layer.", "."): (name, parameter)
        for name, parameter in adapted.model.named_parameters()
        if ".lora_" not in name
    }
    for name, parameter in base.named_parameters():
        own, value = current[name]
        if own not in trained and not torch.equal(value, parameter.to(value.dtype)):
            yield name
