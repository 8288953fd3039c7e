"""Exact causal tracing: restore one component at some positions and see how much of the answer comes back.

No cell is approximated, and next to none repeats work that causality makes needless. Below the restored layer
and before the first restored position a restored run is the corrupted run, whose states, keys and values are
computed once. Inside the restored layer only the restored positions differ. After it, all cells that share
their positions run as one dense batch that grows layer by layer as cells join; windows that start at the same
layer stay one row until the first of them ends. In the last block only the answer's position is computed,
and of the vocabulary only the label words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from absa_edit.model.attention import Heads, Mixed, attention_by, mix
from absa_edit.model.block_runner import BlockInputs, BlockRunner
from absa_edit.model.hooks import edited, entering, silent
from absa_edit.records import Part, Site
from absa_edit.tracing.clean_and_corrupted import PROJECTED, CleanAndCorrupted
from absa_edit.tracing.memory_budget import MemoryBudget


@dataclass(frozen=True)
class Cell:
    """One restoration: `part` in the layers `[start, stop)`, reported at `layer`."""

    part: Part
    layer: int
    start: int
    stop: int
    head: int = 0
    """For `Part.head`."""


def cells(parts: Sequence[Part], layers: int, window: int, heads: int = 0) -> list[Cell]:
    """All restorations of one set of positions: single layers of block and head, windows centred on the layer of
    attn and mlp, cut off at the ends of the model. Source: Meng et al. 2022, appendix B.1 and code.
    """
    all_cells = []
    for part in parts:
        for layer in range(layers):
            start, stop = layer, layer + 1
            if part in (Part.attn, Part.mlp):
                start, stop = max(0, layer - window // 2), min(layers, layer + (window + 1) // 2)
            for head in range(heads if part is Part.head else 1):
                all_cells.append(Cell(part, layer, start, stop, head))
    return all_cells


def restored(
    entries: Entries, positions: Sequence[int], cells_to_run: Sequence[Cell]
) -> Iterator[tuple[list[Cell], Float[Tensor, "sample hidden"]]]:
    """Each group of cells that end alike, with the states they leave the model with at the last position.

    Cells that cannot reach the answer (the last block, at other positions) are left out: they are the corrupted
    run. If the batch does not fit into a GPU's memory, half as many run at once, from then on.
    """
    runner, runs = entries.runner, entries.runs
    positions = [p for p in positions if p >= runs.first]  # before it, both runs are the same
    last = runs.length - 1
    todo = sorted((c for c in cells_to_run if c.start + 1 < runner.layers or last in positions), key=lambda c: c.start)
    if not positions:
        return
    sweep = _Sweep(entries, positions)
    states = runs.samples * (runs.length - positions[0])  # of one cell
    while todo:
        batch = todo[: max(1, entries.budget.states // states)]
        done: list[tuple[list[Cell], Tensor]] | None = None
        try:
            done = sweep.through(batch)
        except torch.OutOfMemoryError:
            if len(batch) == 1:
                raise
        if done is None:
            entries.budget.lower(len(batch) * states)
            continue
        todo = todo[len(batch) :]
        yield from done


class Entries:
    """Restored positions as they leave the block that they are restored in, with nothing else computed of it.

    There positions do not see each other's restoration, so that all that are going to be restored run together.
    """

    def __init__(
        self, runner: BlockRunner, runs: CleanAndCorrupted, positions: Sequence[int], budget: MemoryBudget
    ) -> None:
        self.runner, self.runs, self.budget = runner, runs, budget
        chosen = sorted({p for p in positions if p >= runs.first})
        self.positions = torch.tensor(chosen, dtype=torch.long, device=runs.leaving.device)
        self.block_inputs = runs.block_inputs.at(self.positions)
        self._all: dict[tuple[Part, int], Tensor] = {}

    def of(self, part: Part, index: int, at: Tensor) -> Float[Tensor, "head sample chosen hidden"]:
        """Those at positions `at`; for all but heads, the first dimension is one."""
        if part is Part.block:
            return self.runs.layers[index].clean[part][at].expand(1, self.runs.samples, -1, -1)
        if part is Part.head:  # as many rows as there are heads: much to run at once, and to keep for other positions
            together = max(1, self.budget.states // (self.runs.samples * len(at)))
            chunks = torch.arange(self.runner.heads, device=at.device).split(together)
            return torch.cat([self._run(part, index, at, self.runs.block_inputs.at(at), chunk) for chunk in chunks])
        if (part, index) not in self._all:
            self._all[part, index] = self._run(part, index, self.positions, self.block_inputs)
        return self._all[part, index][:, :, torch.searchsorted(self.positions, at)]

    def _run(
        self, part: Part, index: int, at: Tensor, block_inputs: BlockInputs, heads: Tensor | None = None
    ) -> Float[Tensor, "head sample chosen hidden"]:
        layer = self.runs.layers[index]
        entered = layer.entering[:, at - self.runs.first]
        clean, allowed = layer.clean[part][at], layer.allowed[at]

        def attend(inputs: Heads) -> Mixed:
            if part is Part.attn:  # replaced after the projection anyway
                return torch.zeros_like(inputs.query)
            empty = inputs.key[:, :, :0]
            heads_without_keys = Heads(inputs.query, empty, empty, inputs.scale, inputs.softcap)
            return mix(heads_without_keys, allowed, (layer.keys, layer.values))

        with ExitStack() as stack:
            stack.enter_context(attention_by(self.runner.model, attend))
            if heads is not None:
                entered = entered.repeat(len(heads), 1, 1)

                def put_head(mixed: Tensor) -> Tensor:
                    by_head = mixed.view(len(heads), self.runs.samples, len(at), self.runner.heads, -1).clone()
                    clean_heads = clean.view(1, len(at), self.runner.heads, -1)[:, :, heads].permute(2, 0, 1, 3)
                    by_head[torch.arange(len(heads), device=heads.device), :, :, heads] = clean_heads
                    return by_head.view(mixed.shape)

                stack.enter_context(entering(self.runner.module(Site(index, part)), put_head))
            else:
                if part is Part.attn:
                    stack.enter_context(silent(self.runner.blocks[index], self.runner.layout.asking))
                module = self.runner.module(Site(index, part))
                stack.enter_context(
                    edited(module, lambda out: clean.expand_as(out.view(-1, *clean.shape)).clone().view(out.shape))
                )
            out = self.runner.run(entered, index, index + 1, block_inputs)
        return out.view(-1, self.runs.samples, *out.shape[1:])


@dataclass
class _Row:
    """One row of the batch, times the samples: cells that are the same so far."""

    cells: list[Cell]

    @property
    def part(self) -> Part:
        return self.cells[0].part


@dataclass
class _Sweep:
    """Restorations at one set of positions, run to the end together: a row joins after the block it was restored in.

    Of a model of four blocks, with windows of two layers for attn (block@0 restores what leaves block 0):

        before block      1              2         3         answer
        block@0           joins ─────────────────────────────>
        attn@1 (0 and 1)  joins, put back in 1 ──────────────>
        block@2                                    joins ────>

    What a row has not reached yet is the corrupted run, which is known; only the positions from the first restored one
    on are in a row.
    """

    entries: Entries
    positions: list[int]
    states: dict[tuple[Part, int], Tensor] = field(default_factory=dict)
    """Restored positions as they leave the layer they were restored in: [head or 1, sample, position, hidden]. Kept for
    one starting layer at a time: cells come in order of it."""

    def __post_init__(self) -> None:
        self.runner, self.runs = self.entries.runner, self.entries.runs
        device = self.runs.leaving.device
        self.first = self.positions[0]
        self.at = torch.tensor(self.positions, device=device)
        self.where = self.at - self.first
        self.late = self.runs.block_inputs.at(torch.arange(self.first, self.runs.length, device=device))
        self.here = self.runs.block_inputs.at(self.at)
        self.end = self.runs.block_inputs.at(torch.tensor([self.runs.length - 1], device=device))

    def through(self, batch: Sequence[Cell]) -> list[tuple[list[Cell], Tensor]]:
        """The cells of `batch`, in order of their start, and the states at the last position."""
        runs, layers = self.runs, self.runner.layers
        rows: list[_Row] = []
        hidden = runs.leaving.new_empty(0, runs.samples, runs.length - self.first, runs.leaving.shape[-1])
        for index in range(batch[0].start + 1, layers + 1):
            joining = _together(c for c in batch if c.start + 1 == index)
            entered = runs.layers[index].entering if index < layers else runs.leaving
            new = entered[:, self.first - runs.first :].expand(len(joining), -1, -1, -1).clone()
            if joining:
                new[:, :, self.where] = torch.stack([self.state(row.cells[0]) for row in joining])
            if index == layers:
                rows, hidden = rows + joining, torch.cat((hidden[:, :, -1], new[:, :, -1]))
                break
            rows, hidden = _apart(rows, hidden, index)
            joining, new = _apart(joining, new, index)
            if len(self.positions) < hidden.shape[2]:
                parts = [self.block(index, rows, hidden)] if rows else []
                parts += [self.block(index, joining, new, fresh=True)] if joining else []
                rows, hidden = rows + joining, torch.cat(parts)
            else:  # all positions are restored ones: a fresh row has nothing that is known
                rows, hidden = rows + joining, torch.cat((hidden, new))
                hidden = self.block(index, rows, hidden)
        return [(row.cells, state) for row, state in zip(rows, hidden, strict=True)]

    def block(self, index: int, rows: list[_Row], hidden: Tensor, fresh: bool = False) -> Tensor:
        """One block over some rows; of the last block, only the last position.

        Of `fresh` rows, which differ from the corrupted run at the restored positions only, queries, keys and values
        are computed there and nowhere else.
        """
        layer, last = self.runs.layers[index], index == self.runner.layers - 1
        shape, flat = hidden.shape, hidden.flatten(0, 1)
        precomputed = self.fresh_heads(index, flat) if fresh else None
        if last and not fresh and shape[2] > 1:
            precomputed = self.runner.asks(index, flat, self.late, queries=False)
        block_inputs, positions, at, where = self.late, slice(self.first, None), self.at, self.where
        if last:
            flat, block_inputs, positions = flat[:, -1:], self.end, slice(-1, None)
            at = self.at[self.at == self.runs.length - 1]
            where = torch.zeros_like(at)
        seen = layer.allowed[positions]
        allowed = None if seen.all() else seen
        before = (layer.keys[:, :, : self.first], layer.values[:, :, : self.first]) if self.first else None

        def attend(heads: Heads) -> Mixed:
            if precomputed is not None:
                query = precomputed.query[:, :, -flat.shape[1] :] if fresh else heads.query
                heads = Heads(query, precomputed.key, precomputed.value, heads.scale, heads.softcap)
            return mix(heads, allowed, before)

        with ExitStack() as stack:
            stack.enter_context(attention_by(self.runner.model, attend))
            if precomputed is not None:
                known = self.runner.layout.asking if fresh else self.runner.layout.asking[1:]
                stack.enter_context(silent(self.runner.blocks[index], known))
            for part in PROJECTED:
                inside = [i for i, row in enumerate(rows) if row.part is part and row.cells[0].stop > index]
                if inside and len(where):
                    put = _put_back((*shape[:2], -1), inside, where, layer.clean[part][at])
                    stack.enter_context(edited(self.runner.module(Site(index, part)), put))
            out = self.runner.run(flat, index, index + 1, block_inputs)
        return out.view(*shape[:2], -1, shape[3])

    def fresh_heads(self, index: int, flat: Tensor) -> Heads:
        """The queries, keys and values of fresh rows: the corrupted run's but for the restored positions."""
        layer, late = self.runs.layers[index], self.first - self.runs.first
        restored_heads = self.runner.asks(index, flat[:, self.where], self.here)

        def put(corrupted: Tensor, new: Tensor) -> Tensor:
            repeated = corrupted.repeat(len(flat) // len(corrupted), 1, 1, 1)
            repeated[:, :, self.where] = new
            return repeated

        return Heads(
            put(layer.queries[:, :, late:], restored_heads.query),
            put(layer.keys[:, :, self.first :], restored_heads.key),
            put(layer.values[:, :, self.first :], restored_heads.value),
            restored_heads.scale,
            restored_heads.softcap,
        )

    def state(self, cell: Cell) -> Float[Tensor, "sample chosen hidden"]:
        """The restored positions as they leave the first restored layer."""
        key = cell.part, cell.start
        if key not in self.states:
            self.states = {known: state for known, state in self.states.items() if known[1] == cell.start}
            self.states[key] = self.entries.of(*key, self.at)
        return self.states[key][cell.head]


def _together(joining: Iterator[Cell]) -> list[_Row]:
    """A row for all windows of a part that start at the same layer, and for each other cell."""
    rows: dict[tuple[Part, int], _Row] = {}
    for cell in joining:
        rows.setdefault((cell.part, cell.head), _Row([])).cells.append(cell)
    return list(rows.values())


def _apart(rows: list[_Row], hidden: Tensor, index: int) -> tuple[list[_Row], Tensor]:
    """Rows whose windows no longer agree on block `index`, split into those that end before it and those that go on."""
    split, source = [], []
    for number, row in enumerate(rows):
        over = [c for c in row.cells if c.stop <= index]
        going = [c for c in row.cells if c.stop > index]
        parts = [_Row(part) for part in (over, going) if part]
        split += parts
        source += [number] * len(parts)
    if len(split) > len(rows):
        hidden = hidden[torch.tensor(source, device=hidden.device)]
    return split, hidden


def _put_back(
    shape: tuple[int, ...], rows: list[int], where: Tensor, clean: Float[Tensor, "restored hidden"]
) -> Callable[[Tensor], Tensor]:
    """An edit that puts `clean` at positions `where` of `rows`."""
    chosen = torch.tensor(rows, device=clean.device)[:, None]

    def edit(output: Tensor) -> Tensor:
        by_row = output.view(*shape[:2], -1, output.shape[-1])
        by_row[chosen, :, where] = clean[:, None]
        return output

    return edit
