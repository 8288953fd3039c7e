"""What the components of the model write, token by token, while it reads training examples: forward passes alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from absa_edit.context import Context
from absa_edit.data.prompts import Prompt
from absa_edit.localizers.examples import batches, padded, prompts_of
from absa_edit.localizers.plan import kinds_of
from absa_edit.localizers.settings import LocateSettings
from absa_edit.model.block_runner import BlockRunner
from absa_edit.model.hooks import entering, recorded
from absa_edit.records import Part, Role, Site

OF_THE_EXAMPLE = tuple(role for role in Role if role is not Role.instruction)
"""The words of the instruction are the same in all examples, and the model's first token is like no other."""


@dataclass(frozen=True)
class Component:
    """What a component, or one head, does in some rows of tokens."""

    leaving: Float[Tensor, "row pos hidden"]
    """The residual stream that leaves its block."""
    inputs: Float[Tensor, "row pos input"]
    """What enters its output projection."""
    weight: Float[Tensor, "input hidden"]
    """Of that projection."""
    written: Float[Tensor, "row pos hidden"]
    """What is added to the residual stream; of a head what leaves its columns, before any bias and norm."""


def lengths(vectors: Float[Tensor, "*row wide"]) -> Float[Tensor, "*row"]:
    """Their Euclidean norms."""
    return vectors.square().sum(-1).sqrt()


def weight_of(runner: BlockRunner, site: Site) -> Float[Tensor, "input hidden"]:
    """The part of its projection's weight that `site` stands for, in float32, inputs first in every family."""
    module = runner.module(site)
    weight = cast(Tensor, module.weight).detach().float()
    if type(module).__name__ != "Conv1D":
        weight = weight.T
    return weight[runner.inputs(site)]


def token_scores(
    ctx: Context,
    settings: LocateSettings,
    measure: Callable[[Component], Float[Tensor, "row pos"]],
    views: Sequence[Sequence[Role]],
) -> tuple[Float[np.ndarray, "example kind view layer"], list[str]]:
    """What `measure` says of each site at each token, averaged over the tokens that have a view's roles; and of which
    sentences the examples are. nan where an example has no such token.
    """
    runner, prompts = ctx.lm.runner, prompts_of(ctx, settings)
    kinds = kinds_of(runner, settings.parts)
    values = np.full((len(prompts), len(kinds), len(views), runner.layers), np.nan)
    for batch in ctx.progress(batches([len(p.ids) for p in prompts]), settings.kind):
        rows = [prompts[i] for i in batch]
        for site, component in components(runner, rows, settings.parts):
            by_token = measure(component).cpu().numpy()
            number = kinds.index((site.part, site.index))
            for i, prompt, of_row in zip(batch, rows, by_token, strict=True):
                for view, roles in enumerate(views):
                    if positions := prompt.positions(*roles):
                        values[i, number, view, site.layer] = of_row[positions].mean()
    return values, [p.example.sentence_id for p in prompts]


@torch.no_grad()
def components(
    runner: BlockRunner, prompts: Sequence[Prompt], parts: Sequence[Part]
) -> Iterator[tuple[Site, Component]]:
    """Every site of some parts while the model reads the prompts, block by block: one forward pass."""
    block_inputs = runner.begin(runner.embed(padded([p.ids for p in prompts], runner.device)))
    hidden = block_inputs.hidden
    for layer in range(runner.layers):
        with ExitStack() as stack:
            inputs = {part: stack.enter_context(entering(runner.module(Site(layer, part)))) for part in parts}
            added = {part: stack.enter_context(recorded(runner.added(layer, part))) for part in parts}
            leaving = runner.run(hidden, layer, layer + 1, block_inputs)
        shape = len(prompts), hidden.shape[1], -1  # in OPT's MLPs rows and positions are one dimension
        for part, index in kinds_of(runner, parts):
            site = Site(layer, part, index)
            entered = inputs[part][0].view(shape)[..., runner.inputs(site)].float()
            weight = weight_of(runner, site)
            written = added[part][0].view(shape).float() if index is None else entered @ weight
            yield site, Component(leaving.float(), entered, weight, written)
        hidden = leaving


@torch.no_grad()
def states_at(
    ctx: Context, prompts: Sequence[Prompt], roles: Sequence[Role], name: str
) -> Float[Tensor, "example depth hidden"]:
    """The residual stream that enters the first block and leaves each, a mean over each prompt's tokens of `roles`."""
    runner = ctx.lm.runner
    states: list[Tensor] = [torch.empty(0)] * len(prompts)
    for batch in ctx.progress(batches([len(p.ids) for p in prompts]), name):
        rows = [prompts[i] for i in batch]
        block_inputs = runner.begin(runner.embed(padded([p.ids for p in rows], runner.device)))
        hidden = block_inputs.hidden
        depths = [_averaged(hidden, rows, roles)]
        for layer in range(runner.layers):
            hidden = runner.run(hidden, layer, layer + 1, block_inputs)
            depths.append(_averaged(hidden, rows, roles))
        for i, state in zip(batch, torch.stack(depths, 1), strict=True):
            states[i] = state
    return torch.stack(states)


def _averaged(
    hidden: Float[Tensor, "row pos hidden"], prompts: Sequence[Prompt], roles: Sequence[Role]
) -> Float[Tensor, "row hidden"]:
    rows = zip(hidden.float(), prompts, strict=True)
    return torch.stack([states[prompt.positions(*roles)].mean(0) for states, prompt in rows]).cpu()


def shared_by_parts(
    by_layer: Float[np.ndarray, "example layer"], runner: BlockRunner, parts: Sequence[Part]
) -> Float[np.ndarray, "example kind layer"]:
    """Scores of blocks as those of all sites in them."""
    return np.repeat(by_layer[:, None], len(kinds_of(runner, parts)), axis=1)
