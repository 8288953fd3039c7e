"""The trace of a set of prompts: corruption, the paper's filter, and every cell of every role, example by example."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from absa_edit.data.prompts import Labels, Prompt, roles_of
from absa_edit.data.settings import PromptSettings
from absa_edit.errors import DataError
from absa_edit.model.block_runner import BlockRunner
from absa_edit.model.loading import LanguageModel
from absa_edit.model.onednn_linear import OneDNN
from absa_edit.model.precision import of_trace
from absa_edit.model.prefix_tree import length_buckets
from absa_edit.model.settings import Dtype
from absa_edit.progress import Progress, silent
from absa_edit.records import Example, Part, Trace, TraceCounts
from absa_edit.storage import ENGINE, ESTIMATES, content_hash
from absa_edit.tracing.attribution_patching import Case, Inputs, SharedPrefix, attribute, run
from absa_edit.tracing.clean_and_corrupted import clean_and_corrupted
from absa_edit.tracing.corruption import Corrupter
from absa_edit.tracing.exact_patching import Cell, cells
from absa_edit.tracing.memory_budget import MemoryBudget
from absa_edit.tracing.restoration import CLEAN_WRONG, CORRUPTED_RIGHT, Answer, Only, first_words, restore
from absa_edit.tracing.resume import Traced, TraceLog, plain
from absa_edit.tracing.settings import Corruption, Engine, TraceSettings

CACHED = 500
"""Tokens of prompts that are estimated together on a CPU: with more, their states spill out of its cache."""


def trace_prompts(
    lm: LanguageModel,
    prompts: Sequence[Prompt],
    labels: Labels,
    settings: TraceSettings,
    prompt_settings: PromptSettings,
    *,
    seed: int,
    partial: Path | None = None,
    progress: Progress = silent,
    corrupter: Corrupter | None = None,
    only: Only | None = None,
) -> Trace:
    """The trace of those prompts that pass the paper's filter (clean run right, corrupted run wrong).

    `corrupter` is that of a larger set that the prompts are part of; without one, they have their own.
    With `only`, the exact engine runs some cells, and what it says of the others means nothing. Finished examples are
    kept in the file `partial` until the trace is whole, so that a stopped trace goes on.
    Raises `DataError` when the filter keeps none or two different examples share an id, `RecordError` when `partial` is
    damaged, `ModelError` when two label words begin alike, `ValueError` for the engine auto, which is two such traces
    (`trace_auto`).
    Source: Li et al. 2025 (arXiv 2503.15117), causal tracing; Meng et al. 2022, section 2.1.
    """
    if settings.engine is Engine.auto:
        raise ValueError("trace_prompts runs one engine, exact or attribution; absa_edit.tracing.trace takes auto, too")
    began = time.perf_counter()
    _check_ids(prompts)
    corrupter = corrupter or Corrupter.of(lm, prompts, settings, prompt_settings, seed)
    dtype = of_trace(settings.dtype, lm.model, estimated=settings.estimated)
    settings = replace(settings, dtype=dtype, roles=settings.roles or list(roles_of(prompts)))
    runner = BlockRunner(lm.model, rounded=settings.dtype is Dtype.bfloat16)
    runner.check_parts(settings.parts)
    tracer = _Tracer(
        runner, tuple(labels), first_words(labels), corrupter, settings, only, MemoryBudget(settings.batch_tokens)
    )
    if settings.corruption is Corruption.counterfactual:
        prompts = [p for p in prompts if p.example.id in corrupter.twins]
        if not prompts:
            raise DataError(
                "trace.corruption=counterfactual: none of the traced examples has a twin that lines up with it; "
                "use data with twins (the bundled samples have them) or trace.corruption=noise"
            )
    lm_key = lm.sha256, lm.files_sha256, str(lm.model.dtype)
    some = None if only is None else only.tolist()
    mean = None if corrupter.mean is None else corrupter.mean.tolist()
    key_parts = replace(settings, batch_tokens=1, grids=0, checked=1), prompt_settings, tracer.words, seed, mean, some
    version = (ENGINE, ESTIMATES) if settings.estimated else (ENGINE,)
    log = TraceLog(partial, content_hash(*version, *lm_key, *key_parts, prompts))  # of all that changes a line of it
    spent = log.seconds
    done = dict(log.found)
    todo = [p for p in prompts if p.example.id not in done]
    name = "trace" if settings.engine is Engine.exact else "estimate"
    with OneDNN(tracer.runner.blocks, lay_out=True).on():
        for traced in progress(tracer.trace(todo), name, len(todo), unit="example"):
            done[traced.id] = traced
            log.add(traced, spent + time.perf_counter() - began)
    trace = _assembled(prompts, [done[p.example.id] for p in prompts], tracer, spent + time.perf_counter() - began)
    log.remove()
    return trace


def _check_ids(prompts: Sequence[Prompt]) -> None:
    """Raises `DataError` when two different examples have one id: the trace knows them by it."""
    by_id: dict[str, Example] = {}
    for prompt in prompts:
        example = prompt.example
        if by_id.setdefault(example.id, example) != example:
            raise DataError(
                f"two different examples have the id {example.id!r}: {_described(by_id[example.id])}, and "
                f"{_described(example)}; give each an id of its own, or trace them apart"
            )


def _described(example: Example) -> str:
    return f"{example.aspect!r} in {example.text!r} ({example.label})"


@dataclass
class _Tracer:
    """What every example of a trace is traced with."""

    runner: BlockRunner
    labels: tuple[str, ...]
    words: tuple[int, ...]
    """The first token of each label's word."""
    corrupter: Corrupter
    settings: TraceSettings
    only: Only | None
    budget: MemoryBudget
    prefix: SharedPrefix | None = None
    """Of the last batch that was estimated: the next one begins with the same words."""

    def batches(self, prompts: Sequence[Prompt]) -> list[list[Prompt]]:
        """Prompts that are traced together, the longest first: for estimates as many of like length as memory allows.

        Exactly they are traced one at a time: the cells of one fill a batch.
        """
        most = 1
        if self.settings.engine is not Engine.exact:
            most = self.budget.states // self.runs
            if self.runner.device.type == "cpu":
                most = min(most, CACHED)
        return [[prompts[i] for i in batch] for batch in length_buckets([len(p.ids) for p in prompts], most)]

    @property
    def runs(self) -> int:
        """Rows of an example that is estimated: clean, corrupted, and those with gradients."""
        return 1 + self.samples + self.settings.steps

    @property
    def samples(self) -> int:
        """Corrupted runs of an example: one a noise sample, but for estimates no more than they take gradients."""
        samples, steps = self.corrupter.samples, self.settings.steps
        return samples if self.settings.engine is Engine.exact else min(samples, steps)

    def trace(self, prompts: Sequence[Prompt]) -> Iterator[Traced]:
        """Each example as it is finished: the filter, then every cell of every role."""
        for batch in self.batches(prompts):
            if self.settings.engine is Engine.exact:
                yield self.exactly(*batch)
            else:
                yield from self.attributed(batch)

    def inputs(self, prompt: Prompt) -> tuple[Tensor, Tensor]:
        """Clean and corrupted embeddings."""
        embeds = self.runner.embed(torch.tensor([prompt.ids], device=self.runner.device))
        corrupted = self.corrupter.corrupt(prompt, embeds)
        assert corrupted is not None  # examples without a twin were left out before
        return embeds, corrupted[: self.samples]

    def cells(self) -> list[Cell]:
        return cells(self.settings.parts, self.runner.layers, self.settings.window, self.runner.heads)

    def units(self, prompt: Prompt) -> list[list[int]]:
        return [prompt.positions(role) for role in self.settings.roles]

    def answer(self, prompt: Prompt) -> Answer:
        return Answer(self.words, self.labels.index(prompt.example.label))

    @torch.inference_mode()
    def exactly(self, prompt: Prompt) -> Traced:
        """One example, every cell run."""
        runs = clean_and_corrupted(self.runner, *self.inputs(prompt))
        answer = self.answer(prompt)
        clean, corrupted = (
            self.runner.logits(state, self.words).float() for state in (runs.clean_last, runs.leaving[:, -1])
        )
        note = answer.note(clean, corrupted)
        damaged = answer.means(corrupted)
        traced = Traced(prompt.example.id, note, answer.means(clean), damaged, None)
        if note and self.settings.filter:
            return traced
        shared = (self.cells(), answer, damaged, self.budget, self.only)
        grids = restore(self.runner, runs, self.units(prompt), *shared)
        return replace(traced, restored=plain(grids))

    def attributed(self, batch: Sequence[Prompt]) -> list[Traced]:
        """Examples whose cells are estimated, all from one backward pass; in two halves where that does not fit."""
        states = len(batch) * len(batch[0].ids) * self.runs  # the longest is the first
        if len(batch) == 1 or states <= self.budget.states:
            try:
                return self.attributed_together(batch)
            except torch.OutOfMemoryError:
                if len(batch) == 1:
                    raise
            self.budget.lower(states)
        half = len(batch) // 2
        return self.attributed(batch[:half]) + self.attributed(batch[half:])

    def attributed_together(self, batch: Sequence[Prompt]) -> list[Traced]:
        length = max(len(prompt.ids) for prompt in batch)
        samples, answers = self.samples, [self.answer(prompt) for prompt in batch]
        with torch.no_grad():
            embeds, damaged = zip(*(self.inputs(prompt) for prompt in batch), strict=True)
            clean_inputs = Inputs.of(embeds, length)
            self.prefix = SharedPrefix.of(self.runner, clean_inputs, Inputs.of(damaged, length), known=self.prefix)
            clean = run(self.runner, clean_inputs, self.prefix, self.settings.parts, self.words)
            clean_logits = clean.logits.split(1)
            traced = [
                Traced(p.example.id, CLEAN_WRONG, answer.means(row_logits), None, None)
                for p, answer, row_logits in zip(batch, answers, clean_logits, strict=True)
            ]
            to_corrupt = [
                i
                for i, row_logits in enumerate(clean_logits)
                if answers[i].right(row_logits) or not self.settings.filter
            ]
            if not to_corrupt:
                return traced
            corrupted_inputs = Inputs.of([damaged[i] for i in to_corrupt], length)
            corrupted = run(self.runner, corrupted_inputs, self.prefix, self.settings.parts, self.words)
        cases = []
        for number, (i, sample_logits) in enumerate(zip(to_corrupt, corrupted.logits.split(samples), strict=True)):
            traced[i] = replace(
                traced[i],
                note=answers[i].note(clean_logits[i], sample_logits),
                corrupted=answers[i].means(sample_logits),
            )
            if not (traced[i].note and self.settings.filter):
                cases.append(Case(i, number * samples, answers[i].gold, self.units(batch[i])))
        steps = self.settings.steps
        effects = attribute(self.runner, cases, self.cells(), self.words, clean, corrupted, samples, steps)
        for case, grids in zip(cases, effects, strict=True):
            damage = np.array(traced[case.clean].corrupted)
            restored = {p: grid + damage.reshape(2, *(1,) * (grid.ndim - 1)) for p, grid in grids.items()}
            traced[case.clean] = replace(traced[case.clean], restored=plain(restored))
        return traced


def _assembled(prompts: Sequence[Prompt], done: Sequence[Traced], tracer: _Tracer, seconds: float) -> Trace:
    """The trace of the examples that passed. Raises `DataError` when there is none."""
    settings, corrupter = tracer.settings, tracer.corrupter
    notes = [traced.note for traced in done]
    pairs = [(p, t) for p, t in zip(prompts, done, strict=True) if t.restored is not None]
    counts = TraceCounts(len(prompts), notes.count(CLEAN_WRONG), notes.count(CORRUPTED_RIGHT), len(pairs))
    if not pairs:
        raise DataError(
            f"the trace kept none of {counts.seen} examples: the clean run was wrong on {counts.clean_wrong}, the "
            f"corrupted run still right on {counts.corrupted_right}; trace more examples (trace.examples) or corrupt "
            "more (trace.noise)"
        )
    parts = tuple(part for part in settings.parts if part is not Part.head)
    grids = [{part: np.array(grid, dtype=float) for part, grid in (t.restored or {}).items()} for _, t in pairs]
    by_part = np.stack([[g[part] for part in parts] for g in grids]) if parts else None
    by_head = np.stack([g[Part.head] for g in grids]) if Part.head in settings.parts else None
    both = {
        "clean": np.array([t.clean for _, t in pairs]).T,
        "corrupted": np.array([t.corrupted for _, t in pairs]).T,
        "restored": np.zeros((2, 0)) if by_part is None else np.moveaxis(by_part, 2, 0),
        "restored_heads": np.zeros((2, 0)) if by_head is None else np.moveaxis(by_head, 1, 0),
    }
    return Trace(
        engine=settings.engine.value,
        corruption=settings.corruption.value,
        corrupted_tokens=corrupter.tokens,
        noise_sd=corrupter.noise_sd,
        samples=tracer.samples,
        window=settings.window,
        parts=parts,
        roles=tuple(settings.roles),
        layers=tracer.runner.layers,
        counts=counts,
        seconds=seconds,
        example_ids=tuple(p.example.id for p, _ in pairs),
        sentence_ids=tuple(p.example.sentence_id for p, _ in pairs),
        dtype=settings.dtype.value if settings.dtype is Dtype.bfloat16 else _own_dtype(tracer.runner),
        **{name: values[0] for name, values in both.items()},
        **{f"{name}_margin": values[1] for name, values in both.items()},
    )


def _own_dtype(runner: BlockRunner) -> str:
    return str(runner.model.dtype).removeprefix("torch.")
