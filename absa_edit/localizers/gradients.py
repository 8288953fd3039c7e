"""The gradient of each example's loss with respect to the located matrices, without ever forming it.

The gradient of an output projection is sum_t g_t a_t^T over the tokens: g_t the gradient at its output, a_t its input.
Its squared norm is sum_st (g_s . g_t)(a_s . a_t), which takes products of tokens with tokens alone (Goodfellow 2015,
arXiv 1510.01799; for sequences Li et al. 2022, arXiv 2110.05679, section 4).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from absa_edit.context import Context
from absa_edit.data.prompts import Labels, Prompt
from absa_edit.localizers.base import SiteScores
from absa_edit.localizers.examples import batches, padded, prompts_of
from absa_edit.localizers.plan import kinds_of
from absa_edit.localizers.settings import LocateSettings
from absa_edit.model.block_runner import BlockRunner
from absa_edit.model.hooks import entering, recorded
from absa_edit.records import Part, Site


@dataclass(frozen=True)
class SiteGradient:
    """What the gradient of one matrix, or of one head's columns of it, consists of in some examples."""

    inputs: Float[Tensor, "row pos input"]
    outputs: Float[Tensor, "row pos output"]
    """The loss's gradient at the output; 0 where no loss is."""

    def energy(self) -> Float[Tensor, " row"]:
        """The squared Frobenius norm of each example's gradient."""
        inputs, outputs = self.inputs, self.outputs
        return ((outputs @ outputs.mT) * (inputs @ inputs.mT)).sum((1, 2)).clamp(min=0)  # rounding may go below 0


def gradient_scores(
    ctx: Context, settings: LocateSettings, measure: Callable[[SiteGradient], Float[Tensor, " row"]]
) -> SiteScores:
    """What `measure` says of each site in each drawn training example."""
    runner, prompts = ctx.lm.runner, prompts_of(ctx, settings)
    kinds = kinds_of(runner, settings.parts)
    values = np.zeros((len(prompts), len(kinds), runner.layers))
    for batch in ctx.progress(batches([len(p.ids) for p in prompts]), settings.kind):
        modules = answer_gradients(runner, [prompts[i] for i in batch], ctx.labels, settings.parts)
        for number, kind in enumerate(kinds):
            for layer in range(runner.layers):
                site, of_module = Site(layer, *kind), modules[kind[0], layer]
                of_site = SiteGradient(of_module.inputs[..., runner.inputs(site)], of_module.outputs)
                values[batch, number, layer] = measure(of_site).cpu().numpy()
    return SiteScores.of(values, [p.example.sentence_id for p in prompts])


def answer_gradients(
    runner: BlockRunner, prompts: Sequence[Prompt], labels: Labels, parts: Sequence[Part]
) -> dict[tuple[Part, int], SiteGradient]:
    """By part and layer, the gradients of each prompt's own loss: one forward and one backward pass over the prompts.

    The loss is that of training: -log p(gold word) among the label words, the word's tokens averaged.
    """
    words = [labels[prompt.example.label] for prompt in prompts]
    ids = padded([[*p.ids, *word[:-1]] for p, word in zip(prompts, words, strict=True)], runner.device)
    with torch.enable_grad(), ExitStack() as stack:
        block_inputs = runner.begin(runner.embed(ids))
        modules = {(part, layer): runner.module(Site(layer, part)) for part in parts for layer in range(runner.layers)}
        inputs = {key: stack.enter_context(entering(module)) for key, module in modules.items()}
        outputs = {key: stack.enter_context(recorded(module)) for key, module in modules.items()}
        hidden = block_inputs.hidden.detach().requires_grad_()
        loss = _loss(runner, runner.run(hidden, 0, runner.layers, block_inputs), prompts, words, labels)
        gradients = torch.autograd.grad(loss, [outputs[key][0] for key in modules])
    shape = len(prompts), ids.shape[1], -1  # in OPT's MLPs rows and positions are one dimension
    return {
        key: SiteGradient(inputs[key][0].detach().view(shape).float(), gradient.view(shape).float())
        for key, gradient in zip(modules, gradients, strict=True)
    }


def _loss(
    runner: BlockRunner,
    leaving: Float[Tensor, "row pos hidden"],
    prompts: Sequence[Prompt],
    words: Sequence[Sequence[int]],
    labels: Labels,
) -> Float[Tensor, ""]:
    """The sum of the prompts' losses."""
    tokens = sorted({token for word in labels.values() for token in word})
    rows, positions, targets, shares = zip(
        *(
            (row, len(prompt.ids) - 1 + number, tokens.index(token), 1 / len(word))
            for row, (prompt, word) in enumerate(zip(prompts, words, strict=True))
            for number, token in enumerate(word)
        ),
        strict=True,
    )
    logits = runner.logits(leaving[list(rows), list(positions)], tokens).float()
    device = logits.device
    losses = torch.nn.functional.cross_entropy(logits, torch.tensor(targets, device=device), reduction="none")
    return (losses * torch.tensor(shares, device=device)).sum()
