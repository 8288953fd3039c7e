"""LoFiT: offsets of the outputs of a few attention heads, which scales that were learnt before have chosen."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import LinearLR

from absa_edit.context import Context
from absa_edit.errors import DataError, FitError, SettingsError
from absa_edit.methods.adapted_model import AdaptedModel
from absa_edit.methods.base import Method, method
from absa_edit.methods.head_edit import HeadEdit, edit_heads, without_edits
from absa_edit.methods.settings import MethodSettings, OptionallyLocatedSettings
from absa_edit.model.answer_logits import AnswerLogits
from absa_edit.model.block_runner import BlockRunner
from absa_edit.model.precision import of_training
from absa_edit.model.settings import Precision
from absa_edit.records import EditPlan, Part, Site, Target

log = logging.getLogger("absa_edit")


@dataclass(frozen=True)
class ScaleNorms:
    """How far the scales of each head went."""

    norms: tuple[tuple[float, ...], ...]
    """Layer by layer."""


@dataclass
class Lofit(OptionallyLocatedSettings):
    """Offsets of the attention heads that scales choose; with `located` among those of the plan's layers. A plan of
    heads is taken as it is. The defaults are those of the official scripts."""

    lr: float = 1e-2
    heads: float = 0.1
    """The share of the heads that are edited, at least one. The paper takes 3 to 10 %."""
    choosing_steps: int = 200
    """Steps that the scales learn for, of `fit.batch_size` examples each."""
    choosing_lr: float = 5e-3
    """Their learning rate, which falls linearly to 0."""
    l1: float = 5e-4
    """Their loss has l1 times the sum of their absolute values."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.heads <= 1:
            raise SettingsError(f"method.<name>.heads={self.heads}: expected a share of the heads, above 0 and up to 1")
        if self.choosing_steps < 1 or not 0 < self.choosing_lr < 1 or self.l1 < 0:
            raise SettingsError(
                "method.<name>: expected choosing_steps of at least 1, choosing_lr from 0 to 1 and l1 of 0 or more"
            )


@method("lofit")
class LocalizedOffsets(Method):
    """An offset of each chosen head's output: heads * width parameters.

    Scales of the heads' outputs learn first, under an L1 penalty; the heads with the largest norms are chosen and the
    scales forgotten. What that takes is no part of the fit's figures. Source: Yin et al. 2024 (arXiv 2406.01563) and
    fc2869/lo-fit. Scales and offsets start at 0, not at draws of a standard deviation of 0.001.
    """

    settings = Lofit
    adds_parts = True
    chooses = True

    def located(self, settings: MethodSettings) -> bool:
        return isinstance(settings, Lofit) and settings.located

    def apply(self, ctx: Context, plan: EditPlan | None, settings: MethodSettings) -> AdaptedModel:
        assert isinstance(settings, Lofit)
        if plan is None or any(t.site.part is not Part.head for t in plan.targets):
            plan = self._chosen(ctx, plan.layers() if plan else range(ctx.lm.runner.layers), settings)
        runner = BlockRunner(ctx.copy_of_model())
        heads: dict[int, list[int]] = {}
        for site in sorted(target.site for target in plan.targets):
            heads.setdefault(site.layer, []).append(site.index or 0)
        edits = edit_heads(runner, heads, lambda layer, projection: HeadOffsets(projection, runner.heads, heads[layer]))
        return AdaptedModel(
            self.name,
            runner.model,
            plan=plan,
            lr={"weights": settings.lr},
            start=min(heads),
            touched=sum(edit.outputs for edit in edits.values() if edit.bias is not None),
            fold=lambda: without_edits(runner.model),
        )

    def _chosen(self, ctx: Context, layers: Sequence[int], settings: Lofit) -> EditPlan:
        """The heads of some layers whose scales grow most."""
        learning = settings.choosing_steps, settings.choosing_lr, settings.l1
        fit = ctx.settings.fit
        key = ctx.key("scales of heads", list(layers), learning, fit.batch_size, fit.precision)
        file = f"{self.name}/{key}.json"
        norms = np.array(ctx.kept(ScaleNorms, file, key, lambda: self._learnt(ctx, layers, settings)).norms)
        strongest = np.argsort(-norms, axis=None, kind="stable")[: max(1, round(settings.heads * norms.size))]
        sites = sorted(Site(layers[i // norms.shape[1]], Part.head, int(i % norms.shape[1])) for i in strongest)
        log.info("%s: %d of %d heads are edited: %s", self.name, len(sites), norms.size, ", ".join(map(str, sites)))
        width, _ = ctx.lm.runner.shape(sites[0])
        return EditPlan(self.name, tuple(Target(site, 1) for site in sites), len(sites) * width)

    def _learnt(self, ctx: Context, layers: Sequence[int], settings: Lofit) -> ScaleNorms:
        """The norms of the heads' scales once they have learnt."""
        runner = BlockRunner(ctx.copy_of_model())
        edits = edit_heads(runner, layers, lambda _, projection: HeadScales(projection, runner.heads))
        scales = [edits[layer].scales for layer in layers]
        _learn(ctx, runner, scales, settings)
        return ScaleNorms(tuple(tuple(scale.detach().norm(dim=-1).tolist()) for scale in scales))


def _learn(ctx: Context, runner: BlockRunner, scales: Sequence[nn.Parameter], settings: Lofit) -> None:
    """Train the scales of heads: the gold word's loss among the label words, and the L1 penalty.

    Raises `DataError` without training examples, `FitError` where the loss is no number.
    """
    prompts = ctx.encode(ctx.splits.train)
    if not prompts:
        raise DataError("no training examples are left, which heads are chosen by; take a plan of heads")
    words = ctx.labels
    answers = AnswerLogits(
        runner,
        [prompt.ids for prompt in prompts],
        [words[prompt.example.label] for prompt in prompts],
        preamble=min(prompt.preamble for prompt in prompts),
    )
    tokens = torch.tensor(sorted({token for word in words.values() for token in word}), device=runner.device)
    optimizer = torch.optim.AdamW(scales, lr=settings.choosing_lr, weight_decay=0.0)
    schedule = LinearLR(optimizer, 1.0, 0.0, settings.choosing_steps)
    rounded = of_training(ctx.settings.fit.precision, runner.model) is Precision.bf16
    batches = _batches(len(prompts), ctx.settings.fit.batch_size, ctx.rng("scales of heads"))
    steps = settings.choosing_steps
    for indices in ctx.progress(islice(batches, steps), "scales of heads", steps, unit="step"):
        with torch.autocast(runner.device.type, torch.bfloat16, enabled=rounded):
            logits = answers.logits(indices, words=tokens.tolist()).float()
        answer_tokens = answers.asked(indices)
        target = torch.searchsorted(tokens, answer_tokens.target.contiguous())
        losses = cross_entropy(logits, target, reduction="none")
        penalty = settings.l1 * torch.stack([scale.abs().sum() for scale in scales]).sum()
        loss = (losses * answer_tokens.share).sum() / len(indices) + penalty
        if not math.isfinite(total := float(loss.detach())):
            raise FitError(f"the loss of the heads' scales became {total}; lower the method's choosing_lr")
        loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)


def _batches(examples: int, size: int, rng: np.random.Generator) -> Iterator[list[int]]:
    """All examples in random order, then in another, and so on."""
    while True:
        order = rng.permutation(examples).tolist()
        for first in range(0, examples, size):
            yield order[first : first + size]


class HeadScales(HeadEdit):
    """(1 + A) z, with a vector A of each head."""

    def __init__(self, projection: nn.Module, heads: int) -> None:
        super().__init__(projection, heads)
        self.scales = self.zeros(heads, self.inputs // heads)

    def vectors(self) -> tuple[Float[Tensor, " inputs"], None]:
        return 1 + self.scales.flatten(), None


class HeadOffsets(HeadEdit):
    """z + v, with a vector v of each chosen head."""

    def __init__(self, projection: nn.Module, heads: int, chosen: Sequence[int]) -> None:
        super().__init__(projection, heads)
        # Named by the heads: saved offsets are never put back into others.
        self.offsets = nn.ParameterDict({str(head): self.zeros(self.inputs // heads) for head in chosen})

    def vectors(self) -> tuple[None, Float[Tensor, " inputs"]]:
        nothing = torch.zeros(self.inputs // self.heads, device=self.weight.device)
        names = map(str, range(self.heads))
        return None, torch.cat([self.offsets.get(name, nothing) for name in names])
