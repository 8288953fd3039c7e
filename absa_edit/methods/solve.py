"""An edit that is solved: the smallest change of the located matrices that fits the labels, to first order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from peft import LoraConfig, TaskType
from torch import Tensor

from absa_edit.context import Context
from absa_edit.data.neutral import neutral_text, some_paragraphs
from absa_edit.errors import SettingsError
from absa_edit.methods.adapted_model import AdaptedModel
from absa_edit.methods.base import Method, Rounds, method
from absa_edit.methods.label_logits import LabelLogits, first_tokens
from absa_edit.methods.logistic import Effect, Features, Weights, contrasts, log_loss, logits, regress
from absa_edit.methods.peft_adapter import transposed, with_adapters
from absa_edit.methods.settings import LocatedSettings, MethodSettings
from absa_edit.model.block_runner import BlockRunner
from absa_edit.model.hooks import edited, entering
from absa_edit.records import Dataset, EditPlan, Site

DERIVATIVES, AT_ONCE = 32, 16
"""Training examples that the mean derivative is taken over (of reviewlm's its cosine with that of 128 is 0.997 and
more), and of these in one backward pass."""
SMALLEST_STEP = 1 / 8
NEUTRAL_WORDS, EXPLAINED = 2000, 0.99
"""Words of neutral text that are read, and the share of the inputs that they give, by squared length, that an edit
must not answer to."""


@dataclass
class Solve(LocatedSettings):
    """Deltas of the located output projections that are solved for, not trained."""

    lr: float = 0.0
    rounds: int = 2
    """How often the model is looked at and the regression solved."""
    examples: int | None = None
    """Training examples to look at, drawn by the seed; None is all."""
    l2: list[float] = field(default_factory=lambda: [1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5])
    """Weights of |delta|^2, in units of an example's mean squared slope: from the largest down, as long as the
    development log-loss falls."""
    neutral: bool = False
    """Let no edit answer to the main directions of what enters its matrix where neutral text is read.
    Source: Fang et al. 2024 (AlphaEdit, arXiv 2410.02355), equation 9."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rounds < 1 or (self.examples is not None and self.examples < 1):
            raise SettingsError("method.<name>: expected rounds and examples of at least 1")
        if not self.l2 or min(self.l2) <= 0:
            raise SettingsError(f"method.<name>.l2={self.l2}: expected weights above 0 to choose from")


@dataclass(frozen=True)
class Matrix:
    """An output projection that changes: B A is added to it."""

    site: Site
    inputs: np.ndarray
    """Those of its inputs that are read: all, or those of the located heads."""
    down: Tensor
    up: Tensor


@method("solve")
class Solved(Method):
    """A convex regression on a forward pass over the training prompts.

    Matrix c is given a_c at the answer position; z are the label logits, J_c is the mean derivative of their contrasts
    (`logistic.contrasts`) by what the matrix gives there. Changes D_c of the matrices move the contrasts by the sum of
    J_c D_c a_c, to first order. Mean cross-entropy plus l2 / 2 sum |D_c|^2 is convex in D, and smallest for some
    D_c = U_c R_c^T, U_c an orthonormal basis of the rows of J_c: a LoRA of rank labels - 1 with B = U and A = R^T.
    Each round solves for R about where the edit is, and goes there as far as the development log-loss falls.
    """

    settings = Solve
    needs_plan = True
    adapter = True

    def apply(self, ctx: Context, plan: EditPlan | None, settings: MethodSettings) -> AdaptedModel:
        assert plan is not None  # needs_plan
        first_tokens(ctx)  # or it cannot be solved
        runner = BlockRunner(ctx.copy_of_model())
        inputs = inputs_of(runner, plan)
        paths, rank = [runner.path(site) for site in inputs], len(ctx.task.labels) - 1
        config = LoraConfig(
            r=rank,
            lora_alpha=rank,  # the delta is B A
            target_modules=paths,
            task_type=TaskType.CAUSAL_LM,
            fan_in_fan_out=transposed(runner.model, paths),
        )
        inside = with_adapters(runner.model, config, expected=len(paths))
        adapted = AdaptedModel(self.name, runner.model, inside, plan=plan, start=min(plan.layers()))
        matrices = matrices_of(adapted, inputs)
        for matrix in matrices:
            matrix.down.zero_()
        return replace(
            adapted,
            touched=sum(len(m.inputs) * len(m.up) for m in matrices),
            held=sum(rank * (m.down.shape[1] - len(m.inputs)) for m in matrices),
        )

    def linear_in(self, settings: MethodSettings) -> str:
        return "lora_A"

    def rounds(self, ctx: Context, adapted: AdaptedModel, settings: MethodSettings) -> Rounds:
        assert isinstance(settings, Solve) and adapted.plan is not None
        train, inputs = _drawn(ctx, settings.examples), inputs_of(ctx.lm.runner, adapted.plan)
        matrices = matrices_of(adapted, inputs)
        silenced = [_main_directions(ctx, adapted, m) if settings.neutral else None for m in matrices]
        seen, dev = (Asked(ctx, adapted, data, matrices, silenced) for data in (train, ctx.splits.dev))
        effects = []
        for matrix, slope in zip(matrices, seen.slopes(ctx.rng("slopes")), strict=True):
            left, sizes, rows = np.linalg.svd(slope, full_matrices=False)
            effects.append(left * sizes)
            matrix.up.copy_(torch.from_numpy(rows.T))
        weights = [np.zeros((len(m.inputs), len(e))) for m, e in zip(matrices, effects, strict=True)]
        before, dev_features = dev.look()
        for _ in range(settings.rounds):
            offsets, features = seen.look()
            unit = _mean_squared_slope(features, effects)
            # What the model would answer without the edit, if all were linear.
            without, dev_without = (
                logits(f, effects, z, [-w for w in weights]) for f, z in ((features, offsets), (dev_features, before))
            )
            solution, dev_loss, chosen = weights, np.inf, 0.0
            for l2 in sorted(settings.l2, reverse=True):
                candidate = regress(features, effects, without, seen.gold, l2 * unit, solution)
                loss = log_loss(logits(dev_features, effects, dev_without, candidate), dev.gold)
                if loss >= dev_loss:
                    break
                solution, dev_loss, chosen = candidate, loss, l2
            step, least = 1.0, log_loss(before, dev.gold)
            while True:
                moved = [w + step * (s - w) for w, s in zip(weights, solution, strict=True)]
                _write(matrices, moved)
                after, dev_features = dev.look()
                if log_loss(after, dev.gold) < least or step <= SMALLEST_STEP:
                    break
                step /= 2
            loss = log_loss(logits(features, effects, without, solution), seen.gold)
            if log_loss(after, dev.gold) >= least:
                _write(matrices, weights)
                yield {"loss": loss, "l2": chosen, "step": 0.0}
                return
            yield {"loss": loss, "l2": chosen, "step": step}
            before, weights = after, moved


class Asked(LabelLogits):
    """A data set that the model is asked about, with what enters the matrices where it answers."""

    def __init__(
        self,
        ctx: Context,
        adapted: AdaptedModel,
        data: Dataset,
        matrices: Sequence[Matrix],
        silenced: Sequence[Float[np.ndarray, "_ _"] | None],
    ) -> None:
        super().__init__(ctx, adapted, data)
        self.matrices, self.silenced = matrices, silenced
        self.modules = [self.runner.module(matrix.site) for matrix in matrices]

    @torch.no_grad()
    def look(self) -> tuple[Float[np.ndarray, "example label"], list[Features]]:
        """The label logits, and by matrix what enters it, less what it must not answer to."""
        scores = np.zeros((len(self.gold), len(self.words)))
        features = [np.zeros((len(self.gold), len(m.inputs)), np.float32) for m in self.matrices]
        for batch in self.batches:
            with ExitStack() as stack:
                entered = [stack.enter_context(entering(module)) for module in self.modules]
                scores[batch] = self(batch).cpu().numpy()
            for matrix, states, kept in zip(self.matrices, entered, features, strict=True):
                tokens = states[-1].flatten(0, -2)  # OPT's MLP has them flat already
                here = tokens[self.answers.places(batch, matrix.site.layer)]
                kept[batch] = here.float().cpu().numpy()[:, matrix.inputs]
        for kept, directions in zip(features, self.silenced, strict=True):
            if directions is not None:
                kept -= kept @ directions.T @ directions
        return scores, features

    def slopes(self, rng: np.random.Generator) -> list[Float[np.ndarray, "contrast output"]]:
        """By matrix, the mean derivative of the labels' contrasts by what it gives at the answer position."""
        chosen = rng.permutation(len(self.gold))[:DERIVATIVES].tolist()
        basis = torch.from_numpy(contrasts(len(self.words))).float().to(self.runner.device)
        sums = [np.zeros((basis.shape[1], m.up.shape[0])) for m in self.matrices]
        for batch in (chosen[i : i + AT_ONCE] for i in range(0, len(chosen), AT_ONCE)):
            moves = [m.up.new_zeros(len(m.up), requires_grad=True) for m in self.matrices]
            with ExitStack() as stack:
                for matrix, module, move in zip(self.matrices, self.modules, moves, strict=True):
                    places = self.answers.places(batch, matrix.site.layer)
                    stack.enter_context(edited(module, partial(_moved, places, move)))
                totals = (self(batch) @ basis).sum(0)
            for number, total in enumerate(totals):
                for kept, slope in zip(sums, torch.autograd.grad(total, moves, retain_graph=True), strict=True):
                    kept[number] += slope.cpu().numpy() / len(chosen)
        return sums


def _moved(places: Tensor, move: Tensor, states: Tensor) -> Tensor:
    """States of one row, with `move` added at some places."""
    rows = move.to(states.dtype).expand(len(places), -1)
    return states.flatten(0, -2).index_put((places,), rows, accumulate=True).view_as(states)


def inputs_of(runner: BlockRunner, plan: EditPlan) -> dict[Site, np.ndarray]:
    """By a site of each projection that the plan names, the inputs that are read: those of all its sites."""
    places: dict[str, tuple[Site, list[np.ndarray]]] = {}
    for target in plan.targets:
        read = runner.inputs(target.site)
        places.setdefault(runner.path(target.site), (target.site, []))[1].append(np.arange(read.start, read.stop))
    return {site: np.concatenate(parts) for site, parts in places.values()}


def matrices_of(adapted: AdaptedModel, inputs: Mapping[Site, np.ndarray]) -> list[Matrix]:
    """What changes in `adapted`, by what is read at each site."""
    runner = adapted.runner
    return [
        Matrix(
            site,
            read,
            *(runner.model.get_parameter(f"{runner.path(site)}.lora_{side}.default.weight").detach() for side in "AB"),
        )
        for site, read in inputs.items()
    ]


def _write(matrices: Sequence[Matrix], weights: Sequence[Weights]) -> None:
    for matrix, contrast_weights in zip(matrices, weights, strict=True):
        matrix.down[:, matrix.inputs] = torch.from_numpy(contrast_weights.T).to(matrix.down)


def _drawn(ctx: Context, most: int | None) -> Dataset:
    """The training data, or so many examples of it."""
    train = ctx.splits.train
    if most is None or most >= len(train):
        return train
    chosen = sorted(ctx.rng("solve").permutation(len(train))[:most])
    return replace(train, examples=tuple(train.examples[i] for i in chosen))


def _mean_squared_slope(features: Sequence[Features], effects: Sequence[Effect]) -> float:
    """Of a contrast by the deltas, over examples and contrasts."""
    squares = (np.square(f).sum(1).mean() * np.square(e).sum() / len(e) for f, e in zip(features, effects, strict=True))
    return float(sum(squares))


@torch.no_grad()
def _main_directions(ctx: Context, adapted: AdaptedModel, matrix: Matrix) -> Float[np.ndarray, "direction input"]:
    """Orthonormal directions that hold nearly all of what enters a matrix where neutral text is read."""
    inputs = []
    for text in some_paragraphs(neutral_text(), NEUTRAL_WORDS, ctx.rng("silent directions")):
        ids = torch.tensor([ctx.lm.tokenizer(text)["input_ids"]], device=adapted.model.device)
        with entering(adapted.runner.module(matrix.site)) as states:
            adapted.model(input_ids=ids, use_cache=False)
        inputs.append(states[-1][0].float().cpu().numpy()[:, matrix.inputs])
    _, sizes, directions = np.linalg.svd(np.concatenate(inputs), full_matrices=False)
    shares = np.cumsum(sizes**2) / np.sum(sizes**2)
    return np.asarray(directions[: int(np.searchsorted(shares, EXPLAINED)) + 1])
