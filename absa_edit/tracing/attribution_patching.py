"""Attribution patching: what each restoration would bring back, to first order, for all sites from one backward pass.

The effect of putting a clean state back is estimated as (clean - corrupted) times the gradient of the answer with
respect to that state. Source: Nanda 2023; Kramar et al. 2024 (AtP*, arXiv 2403.00745). The answer is far from
linear between the two runs, so gradients are taken at points between them: the inputs are moved some way from
corrupted to clean (integrated gradients; Hanna et al. 2024, arXiv 2403.17806). The points are dealt out to the noise
samples in turn, and samples beyond them are not run, so that an example costs one backward pass a point, however many
samples are asked for. What all inputs of a batch begin with (the instruction) is computed once: no run changes it, and
restoring it brings nothing back.

AtP* has two fixes. Its recomputed attention is for restored queries and keys, which are no sites here. Its gradient
dropout (a backward pass for each layer, without the gradients through it) was tried and is not here: it multiplies the
backward passes, and the estimates agree with the exact engine hardly better.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from absa_edit.model.attention import attention_by, mix
from absa_edit.model.block_runner import BlockRunner
from absa_edit.model.hooks import entering, recorded
from absa_edit.model.shared_prefix import PrefixKeys, prefix_keys
from absa_edit.records import Part, Site
from absa_edit.tracing.clean_and_corrupted import first_changed
from absa_edit.tracing.exact_patching import Cell


@dataclass(frozen=True)
class Inputs:
    """Rows of one length, padded on the right."""

    embeds: Float[Tensor, "row pos embedding"]
    ends: Int[Tensor, " row"]
    """The last position of each row that is not padding: where the answer is read."""

    @classmethod
    def of(cls, embeds: Sequence[Float[Tensor, "_ _ embedding"]], length: int) -> Inputs:
        """All rows of inputs of different length, in order."""
        padded = torch.cat([torch.nn.functional.pad(e, (0, 0, 0, length - e.shape[1])) for e in embeds])
        return cls(padded, torch.tensor([e.shape[1] - 1 for e in embeds for _ in e], device=padded.device))


@dataclass(frozen=True)
class SharedPrefix:
    """What all rows of some inputs begin with."""

    embeds: Float[Tensor, "pos embedding"]
    """By which other inputs that begin alike are known."""
    kept: PrefixKeys
    reach: Sequence[Bool[Tensor, "query key"]]
    """By layer, the positions that each position of the rows sees."""

    @property
    def length(self) -> int:
        return len(self.embeds)

    @classmethod
    @torch.no_grad()
    def of(cls, runner: BlockRunner, *inputs: Inputs, known: SharedPrefix | None = None) -> SharedPrefix:
        """The prefix of several inputs of one length; the last positions of rows are never in it.

        That of other inputs, which is `known`, will do where these begin with it, too.
        """
        first = inputs[0].embeds[:1]
        length = min(min(first_changed(first, rows.embeds), int(rows.ends.min())) for rows in inputs)
        reach = runner.reach(first.shape[1])
        if known and 0 < known.length <= length and torch.equal(first[0, : known.length], known.embeds):
            return replace(known, reach=reach)
        if not length:
            return cls(first[0, :0], (), reach)
        return cls(first[0, :length].clone(), prefix_keys(runner, first[:, :length], reach), reach)


@dataclass(frozen=True)
class Outputs:
    """What a run over some inputs leaves behind."""

    inputs: Inputs
    prefix: SharedPrefix
    states: dict[tuple[Part, int], Float[Tensor, "row late wide"]]
    """By part and layer, after the prefix; of the last layer only those at `ends`: no others reach the answer."""
    logits: Float[Tensor, "row word"]
    """Of the label words."""


@dataclass(frozen=True)
class Case:
    """One prompt to estimate the restorations of."""

    clean: int
    """Its row in the clean run."""
    corrupted: int
    """The first of its samples in the corrupted run."""
    gold: int
    units: Sequence[Sequence[int]]
    """Sets of positions to restore."""


def run(
    runner: BlockRunner, inputs: Inputs, prefix: SharedPrefix, parts: Sequence[Part], words: Sequence[int]
) -> Outputs:
    """A run over `inputs` with the states at all sites; with gradients where they are enabled."""
    length, ends = inputs.embeds.shape[1], inputs.ends[:, None] - prefix.length
    with torch.no_grad():
        block_inputs = runner.begin(inputs.embeds).at(torch.arange(prefix.length, length, device=ends.device))
    seen = [allowed[prefix.length :] for allowed in prefix.reach]
    hidden = block_inputs.hidden.detach().requires_grad_(torch.is_grad_enabled())
    states: dict[tuple[Part, int], Tensor] = {}
    for layer in range(runner.layers):
        before = prefix.kept[layer] if prefix.length else None
        with ExitStack() as stack:
            # of attention and MLP what is added: a norm after them turns their change by more than its gradient tells
            kept = {
                part: stack.enter_context(
                    entering(runner.module(Site(layer, part)))
                    if part is Part.head
                    else recorded(runner.added(layer, part))
                )
                for part in parts
                if part is not Part.block
            }
            if layer < runner.layers - 1:
                stack.enter_context(attention_by(runner.model, partial(mix, allowed=seen[layer], before=before)))
                hidden = runner.run(hidden, layer, layer + 1, block_inputs)
            else:  # only where the answer is read
                attend = partial(mix, allowed=seen[layer][ends][:, None, None], before=before)
                hidden = runner.run_at(layer, hidden, ends, block_inputs, attend)
        outputs = {part: captured[0] for part, captured in kept.items()} | {Part.block: hidden}
        states |= {(part, layer): outputs[part] for part in parts}
    return Outputs(inputs, prefix, states, runner.logits(hidden[:, 0], words).float())


def attribute(
    runner: BlockRunner,
    cases: Sequence[Case],
    cells: Sequence[Cell],
    words: Sequence[int],
    clean: Outputs,
    corrupted: Outputs,
    samples: int,
    steps: int,
) -> list[dict[Part, np.ndarray]]:
    """Estimated indirect effects on probability and log-odds of each case's restorations.

    Each case has `samples` corrupted rows, and `steps` points between these and its clean one.
    By part an array (measure, unit, layer), for head (measure, unit, layer, head); nan for units without positions.
    """
    if not cases:
        return []
    parts = tuple(dict.fromkeys(c.part for c in cells))
    device = clean.logits.device
    dealt = [(case.clean, case.corrupted + k % samples, case.gold) for case in cases for k in range(steps)]
    clean_rows, corrupted_rows, gold = torch.tensor(dealt, device=device).unbind(1)
    share = ((torch.arange(steps, device=device) + 0.5) / steps).repeat(len(cases))[:, None, None]
    between = torch.lerp(
        corrupted.inputs.embeds[corrupted_rows], clean.inputs.embeds[clean_rows], share.to(clean.inputs.embeds.dtype)
    )
    with torch.enable_grad():
        outputs = run(runner, Inputs(between, clean.inputs.ends[clean_rows]), clean.prefix, parts, words)
        others = outputs.logits.scatter(1, gold[:, None], float("-inf")).logsumexp(1)
        log_odds = outputs.logits.gather(1, gold[:, None])[:, 0] - others
        gradients = torch.autograd.grad(log_odds.sum(), list(outputs.states.values()))
    probability = log_odds.detach().sigmoid()
    scales = torch.stack((probability * (1 - probability), torch.ones_like(probability))).view(2, -1, steps) / steps
    by_layer: dict[Part, list[Tensor]] = {part: [] for part in parts}
    for (part, layer), gradient in zip(outputs.states, gradients, strict=True):
        reaching = layer < runner.layers - 1
        late = between.shape[1] - clean.prefix.length if reaching else 1
        shape = -1, late, gradient.shape[-1]  # in OPT's MLPs rows and positions are one dimension
        change = (
            clean.states[part, layer].view(shape)[clean_rows]
            - corrupted.states[part, layer].view(shape)[corrupted_rows]
        )
        product = change.float() * gradient.view(shape)
        by_head = product.unflatten(-1, (runner.heads if part is Part.head else 1, -1)).sum(-1)
        by_position = by_head.new_zeros(*between.shape[:2], by_head.shape[-1])
        if reaching:
            by_position[:, clean.prefix.length :] = by_head
        else:
            by_position[torch.arange(len(between), device=device), outputs.inputs.ends] = by_head[:, 0]
        by_layer[part].append(torch.einsum("mcs,csph->mcph", scales, by_position.unflatten(0, (-1, steps))))
    return _of_units(cases, cells, {part: torch.stack(grids, 2) for part, grids in by_layer.items()})


def _of_units(
    cases: Sequence[Case], cells: Sequence[Cell], effects: dict[Part, Float[Tensor, "measure case layer pos head"]]
) -> list[dict[Part, np.ndarray]]:
    """Sums over the positions of each unit and the layers of each window.

    The gradient at one layer of a window also runs through its next ones, which are restored themselves: that part
    counts twice.
    """
    some = next(iter(effects.values()))
    inside = some.new_zeros(len(cases), len(cases[0].units), some.shape[3])
    for chosen, case in zip(inside, cases, strict=True):
        for row, positions in zip(chosen, case.units, strict=True):
            row[list(positions)] = 1
    sums = {part: torch.einsum("cup,mclph->cmulh", inside, grid).cpu().numpy() for part, grid in effects.items()}
    grids = {part: np.zeros_like(each) for part, each in sums.items()}
    for cell in cells:
        window = sums[cell.part][:, :, :, cell.start : cell.stop, cell.head]
        grids[cell.part][:, :, :, cell.layer, cell.head] = window.sum(-1)
    absent = ~inside.bool().any(-1).cpu().numpy()
    for part, grid in grids.items():
        np.moveaxis(grid, 2, 1)[absent] = np.nan
        grids[part] = grid if part is Part.head else grid[..., 0]
    return [{part: grid[i] for part, grid in grids.items()} for i in range(len(cases))]
