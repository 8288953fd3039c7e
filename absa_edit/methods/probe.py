"""The model's lower blocks with a linear head on their states."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Int

from absa_edit.context import Context
from absa_edit.errors import PlanError, SettingsError
from absa_edit.methods.adapted_model import AdaptedModel
from absa_edit.methods.answer_head import POOLINGS, AnswerHead, Pooling
from absa_edit.methods.base import Method, Rounds, method
from absa_edit.methods.logistic import contrasts, log_loss, regress
from absa_edit.methods.settings import MethodSettings
from absa_edit.model.block_runner import BlockRunner
from absa_edit.model.span_states import SpanStates
from absa_edit.records import Dataset, EditPlan
from absa_edit.resampling import label_numbers

log = logging.getLogger("absa_edit")

CONSTANT = 10.0
"""What the intercept is multiplied by, so that l2 costs it a hundredth of what it costs a state's weight."""

SMALLEST_DEVIATION = 1e-6

States = Float[np.ndarray, "example hidden"]


@dataclass
class Probe(MethodSettings):
    """A linear head on the states of a block."""

    lr: float = 0.0
    layers: list[int] = field(default_factory=list)
    """Blocks to choose from; empty is all."""
    poolings: list[Pooling] = field(default_factory=lambda: [Pooling.last, Pooling.aspect])
    """Which states to choose from; prompts that repeat no aspect have the last one alone."""
    l2: list[float] = field(default_factory=lambda: [0.3, 0.1, 0.03, 0.01])
    """Weights of the squared coefficients of standardised states to choose from, in units of the mean loss."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.poolings or not self.l2 or min(self.l2) <= 0:
            raise SettingsError("method.<name>: expected poolings, and l2 above 0, to choose from")


@method("probe")
class TruncatedModel(Method):
    """A multinomial logistic regression on standardised states of the frozen model: labels * (hidden + 1) parameters.

    Block, pooling and l2 are those with the least development log-loss; what lies above the block is not run.
    Source: Di Palma et al. 2025 (arXiv 2505.16491), who choose on the test data and pool over padding, too.
    """

    settings = Probe
    adds_parts = True

    def check(self, runner: BlockRunner, plan: EditPlan | None, settings: MethodSettings) -> None:
        assert isinstance(settings, Probe)
        if odd := [layer for layer in settings.layers if not 0 <= layer < runner.layers]:
            raise PlanError(f"method.<name>.layers: {odd[0]}; the model has layers 0 to {runner.layers - 1}")

    def apply(self, ctx: Context, plan: EditPlan | None, settings: MethodSettings) -> AdaptedModel:
        model = ctx.copy_of_model()
        head = AnswerHead(len(ctx.task.labels), model.config.hidden_size).to(model.device)
        return AdaptedModel(self.name, model, head=head)

    def rounds(self, ctx: Context, adapted: AdaptedModel, settings: MethodSettings) -> Rounds:
        assert isinstance(settings, Probe) and adapted.head is not None
        poolings = list(settings.poolings) if ctx.task.asks_aspect else [Pooling.last]
        layers = sorted(settings.layers) or list(range(adapted.runner.layers))
        splits = ctx.splits.train, ctx.splits.dev
        seen, dev = (_states(ctx, adapted, data, layers, poolings) for data in splits)
        gold, dev_gold = (label_numbers([e.label for e in data.examples], ctx.task.labels) for data in splits)
        labels = len(ctx.task.labels)
        chosen: tuple[_Regression, tuple[int, Pooling]] | None = None
        for place, states in ctx.progress(seen.items(), "blocks", len(seen)):
            for solved in _regressions(states, gold, dev[place], dev_gold, labels, settings.l2):
                if chosen is None or solved.dev_loss < chosen[0].dev_loss:
                    chosen = solved, place
        assert chosen is not None
        solved, (layer, pooling) = chosen
        with torch.no_grad():
            adapted.head.weight.copy_(torch.from_numpy(solved.weight))
            adapted.head.bias.copy_(torch.from_numpy(solved.bias))
            adapted.head.place.copy_(torch.tensor([layer, POOLINGS.index(pooling)]))
        log.info("%s: block %d, pooling %s, l2 %g", self.name, layer, pooling.value, solved.l2)
        yield {"loss": solved.loss, "l2": solved.l2, "layer": float(layer), "pooling": float(POOLINGS.index(pooling))}


@dataclass(frozen=True)
class _Regression:
    """A head, for states as they are, and its mean losses."""

    l2: float
    weight: Float[np.ndarray, "label hidden"]
    bias: Float[np.ndarray, " label"]
    loss: float
    dev_loss: float


def _regressions(
    states: States,
    gold: Int[np.ndarray, " example"],
    dev: Float[np.ndarray, "dev hidden"],
    dev_gold: Int[np.ndarray, " dev"],
    labels: int,
    strengths: Sequence[float],
) -> Iterator[_Regression]:
    """For each strength of l2, the regression on states with mean 0 and deviation 1 on the training data."""
    basis, identity = contrasts(labels), np.eye(labels - 1)
    effects = [identity, CONSTANT * identity]
    mean, deviation = states.mean(0), states.std(0) + SMALLEST_DEVIATION
    features = [(states - mean) / deviation, np.ones((len(states), 1), states.dtype)]
    start = None
    for l2 in sorted(strengths, reverse=True):
        start = regress(features, effects, np.zeros((len(gold), labels)), gold, l2, start)
        weight = basis @ start[0].T / deviation
        bias = basis @ (CONSTANT * start[1][0]) - weight @ mean
        loss, dev_loss = (log_loss(x @ weight.T + bias, y) for x, y in ((states, gold), (dev, dev_gold)))
        yield _Regression(l2, weight, bias, loss, dev_loss)


def _states(
    ctx: Context, adapted: AdaptedModel, data: Dataset, layers: list[int], poolings: list[Pooling]
) -> dict[tuple[int, Pooling], States]:
    """The pooled states of a data set, by block and pooling."""
    prompts = ctx.encode(data)
    spans = SpanStates(adapted.runner, [p.ids for p in prompts], [[k.span(p) for k in poolings] for p in prompts])
    states = np.zeros((len(layers), len(poolings), len(data), adapted.model.config.hidden_size), np.float32)
    batches = spans.batches(ctx.settings.score.batch_tokens)
    for batch in ctx.progress(batches, "states", len(batches)):
        for number, means in enumerate(spans.means(batch, layers)):
            states[number][:, batch] = means.float().cpu().numpy().swapaxes(0, 1)
    return {(layer, kind): states[i, k] for i, layer in enumerate(layers) for k, kind in enumerate(poolings)}
