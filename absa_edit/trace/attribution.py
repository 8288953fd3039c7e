"""Attribution patching: what each restoration would bring back, to first order, from one backward pass.

The effect of putting a clean state back is estimated as (clean - corrupted) times the gradient of the answer with
respect to that state. Source: Nanda 2023; Kramar et al. 2024 (AtP*, arXiv 2403.00745). The answer is far from
linear between the two runs, so the gradient is the mean of those at points between them: the inputs are moved from
corrupted to clean in a few steps (integrated gradients; Hanna et al. 2024, arXiv 2403.17806).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from absa_edit.lm.decoder import Decoder
from absa_edit.lm.hooks import entering, recorded
from absa_edit.records import Part, Site
from absa_edit.trace.exact import Cell

Sites = dict[tuple[Part, int], Float[Tensor, "row pos wide"]]


@dataclass(frozen=True)
class Case:
    """One prompt of a batch."""

    clean: Float[Tensor, "1 pos embedding"]
    corrupted: Float[Tensor, "sample pos embedding"]
    gold: int
    units: Sequence[Sequence[int]]
    """Sets of positions to restore."""


def attribute(
    decoder: Decoder, cases: Sequence[Case], every: Sequence[Cell], words: Sequence[int], steps: int
) -> list[dict[Part, np.ndarray]]:
    """Estimated indirect effects on probability and margin of each case's restorations.

    By part an array (measure, unit, layer), for head (measure, unit, layer, head); nan for units without positions.
    """
    parts = tuple(dict.fromkeys(c.part for c in every))
    samples = [len(case.corrupted) for case in cases]
    golds = [case.gold for case in cases for _ in case.corrupted]
    with torch.no_grad():
        clean = _run(decoder, [case.clean for case in cases], parts, words, [case.gold for case in cases])[0]
    of_case = torch.repeat_interleave(torch.arange(len(cases)), torch.tensor(samples))
    differences: Sites = {}
    gradients: list[Sites] = [{}, {}]
    for step in range(steps):
        between = [case.corrupted + step / steps * (case.clean - case.corrupted) for case in cases]
        with torch.enable_grad():
            states, answers = _run(decoder, between, parts, words, golds)
            for measure, answer in enumerate(answers):
                found = torch.autograd.grad(answer.sum(), list(states.values()), retain_graph=measure == 0)
                for site, gradient in zip(states, found, strict=True):
                    by_row = gradient.reshape(len(golds), -1, gradient.shape[-1])  # OPT's MLPs see a single row
                    gradients[measure][site] = gradients[measure].get(site, 0) + by_row / steps
        if not step:
            for site, state in states.items():
                width = state.shape[-1]
                own, other = state.detach().reshape(len(golds), -1, width), clean[site].reshape(len(cases), -1, width)
                differences[site] = other[of_case] - own
    estimates = [_by_position(decoder, parts, differences, of_measure, samples) for of_measure in gradients]
    return [
        _of_units(case, every, [{part: every_case[part][i] for part in parts} for every_case in estimates])
        for i, case in enumerate(cases)
    ]


def label_logits(
    decoder: Decoder, embeds: Sequence[Float[Tensor, "row _ embedding"]], words: Sequence[int]
) -> list[Float[Tensor, "row word"]]:
    """Logits of the label words after each of some inputs of different length."""
    padded, last = _padded(embeds)
    frame = decoder.begin(padded)
    hidden = decoder.run(frame.hidden, 0, decoder.layers, frame)
    logits = decoder.logits(hidden[torch.arange(len(last)), last], words).float()
    return list(logits.split([len(e) for e in embeds]))


def _padded(embeds: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """All rows, padded on the right, and the last position of each."""
    longest = max(e.shape[1] for e in embeds)
    padded = torch.cat([torch.nn.functional.pad(e, (0, 0, 0, longest - e.shape[1])) for e in embeds])
    return padded, torch.tensor([e.shape[1] - 1 for e in embeds for _ in e], device=padded.device)


def _run(
    decoder: Decoder, embeds: Sequence[Tensor], parts: Sequence[Part], words: Sequence[int], golds: Sequence[int]
) -> tuple[Sites, tuple[Tensor, Tensor]]:
    """The states at all sites, and each row's probability and margin of its gold label."""
    padded, last = _padded(embeds)
    with torch.no_grad():
        frame = decoder.begin(padded)
    hidden = frame.hidden.detach().requires_grad_(torch.is_grad_enabled())
    states: Sites = {}
    for layer in range(decoder.layers):
        with ExitStack() as stack:
            kept = {}
            for part in parts:
                if part is not Part.block:
                    reading = entering if part is Part.head else recorded
                    kept[part] = stack.enter_context(reading(decoder.module(Site(layer, part))))
            hidden = decoder.run(hidden, layer, layer + 1, frame)
        states |= {(part, layer): found[0] for part, found in kept.items()}
        if Part.block in parts:
            states[Part.block, layer] = hidden
    logits = decoder.logits(hidden[torch.arange(len(last)), last], words).float()
    gold = torch.tensor(golds, device=logits.device)[:, None]
    own = logits.gather(1, gold)[:, 0]
    others = logits.scatter(1, gold, float("-inf")).amax(1)
    return states, (logits.softmax(-1).gather(1, gold)[:, 0], own - others)


def _by_position(
    decoder: Decoder, parts: Sequence[Part], differences: Sites, gradients: Sites, samples: Sequence[int]
) -> dict[Part, list[Float[np.ndarray, "layer pos head"]]]:
    """By part and case, the estimate of restoring one position in one layer: mean over the samples."""
    found: dict[Part, list[np.ndarray]] = {}
    for part in parts:
        heads = decoder.heads if part is Part.head else 1
        layers = []
        for layer in range(decoder.layers):
            product = (differences[part, layer] * gradients[part, layer]).float()
            rows, length = len(product.flatten(0, -3)), product.shape[-2]
            layers.append(product.view(rows, length, heads, -1).sum(-1))
        whole = torch.stack(layers, 1).split(list(samples))
        found[part] = [rows.mean(0).cpu().numpy() for rows in whole]
    return found


def _of_units(case: Case, every: Sequence[Cell], measures: Sequence[dict[Part, np.ndarray]]) -> dict[Part, np.ndarray]:
    """Sums over the positions of each unit and the layers of each window."""
    grids: dict[Part, np.ndarray] = {}
    for cell in every:
        layers, _, heads = measures[0][cell.part].shape
        shape = (2, len(case.units), layers, *((heads,) if cell.part is Part.head else ()))
        grid = grids.setdefault(cell.part, np.full(shape, np.nan))
        for number, positions in enumerate(case.units):
            if positions:
                at = (number, cell.layer, *((cell.head,) if cell.part is Part.head else ()))
                for measure, estimates in enumerate(measures):
                    chosen = estimates[cell.part][cell.start : cell.stop, list(positions), cell.head]
                    grid[(measure, *at)] = chosen.sum()
    return grids
