"""Exact causal tracing: restore one component at one role and see how much of the answer comes back.

No cell is approximated, and no cell repeats work that causality makes needless: a restored run starts at
the restored layer and at the first restored position; what lies below and before is the corrupted run, computed
once. All cells of a role run as one dense batch that grows layer by layer as cells join it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from transformers import DynamicCache

from absa_edit.config import Corruption, PromptSettings, TraceSettings
from absa_edit.data.prompts import Prompt, counterfactual, encode
from absa_edit.errors import DataError, ModelError
from absa_edit.lm.decoder import Decoder, Frame, PrefixCache
from absa_edit.lm.hooks import edited, recorded
from absa_edit.lm.load import LanguageModel
from absa_edit.progress import Progress, silent
from absa_edit.records import POLARITIES, Part, Polarity, Site, Trace, TraceCounts
from absa_edit.trace.corrupt import ROLES, embedding_sd, noisy, twin_embeds

Labels = dict[Polarity, tuple[int, ...]]


@dataclass(frozen=True)
class Outcome:
    """Gold probability and margin (gold logit minus the larger other label's) of each row."""

    probability: Float[Tensor, " row"]
    margin: Float[Tensor, " row"]


@dataclass(frozen=True)
class Runs:
    """States of the clean and the corrupted run of one prompt, enough to start a restored run anywhere."""

    clean: dict[Part, list[Float[Tensor, "pos hidden"]]]
    """Output of each part, by layer."""
    entering: list[Float[Tensor, "sample pos hidden"]]
    """Corrupted states entering each block; one more at the end for what leaves the last."""
    keys_values: DynamicCache
    """Of the corrupted run."""
    embeds: Float[Tensor, "1 pos embedding"]
    """Clean embeddings; restored runs need their shape only."""
    first_changed: int
    """The first corrupted position: before it, and in each layer, both runs are the same."""


@dataclass(frozen=True)
class Cell:
    """One restoration: `part` in the layers `[start, stop)`, reported at `layer`."""

    part: Part
    layer: int
    start: int
    stop: int

    @property
    def joins(self) -> int:
        """The first block that the restored run has to compute."""
        return self.layer + 1 if self.part is Part.block else self.start


def cells(parts: Sequence[Part], layers: int, window: int) -> list[Cell]:
    """All restorations of one role: single layers of the block, windows centred on the layer of attn and mlp.

    Windows are cut off at the ends of the model. Source: Meng et al. 2022, appendix B.1 and code.
    """
    return [
        Cell(part, layer, layer, layer + 1)
        if part is Part.block
        else Cell(part, layer, max(0, layer - window // 2), min(layers, layer + (window + 1) // 2))
        for part in parts
        for layer in range(layers)
    ]


@torch.inference_mode()
def trace_exact(
    lm: LanguageModel,
    prompts: Sequence[Prompt],
    labels: Labels,
    settings: TraceSettings,
    prompt_settings: PromptSettings,
    *,
    rng: torch.Generator,
    progress: Progress = silent,
) -> Trace:
    """The trace of those prompts that pass the paper's filter (clean run right, corrupted run wrong).

    Raises `DataError` when the filter keeps none.
    Source: Li et al. 2025 (arXiv 2503.15117), causal tracing; Meng et al. 2022, section 2.1.
    """
    began = time.perf_counter()
    decoder = Decoder(lm.model)
    answers = _first_tokens(labels)
    sd = embedding_sd(decoder) * settings.noise if settings.corruption is Corruption.noise else 0.0
    twins = _twins(lm, prompts, prompt_settings) if settings.corruption is Corruption.counterfactual else {}
    if settings.corruption is Corruption.counterfactual:
        prompts = [p for p in prompts if p.example.id in twins]
    if not prompts:
        raise DataError(
            "trace.corruption=counterfactual: none of the traced examples has a twin that lines up with it; "
            "use data with twins (the bundled samples have them) or trace.corruption=noise"
        )
    kept, rows = [], []
    clean_wrong = corrupted_right = 0
    for prompt in progress(prompts, "trace", len(prompts)):
        embeds = decoder.embed(torch.tensor([prompt.ids], device=decoder.device))
        if twins:
            corrupted = twins[prompt.example.id]
        else:
            positions = prompt.positions(*ROLES[settings.tokens])
            corrupted = noisy(embeds, positions, settings.samples, sd, rng)
        gold = POLARITIES.index(prompt.example.polarity)
        runs, clean_logits, corrupted_logits = _run_both(decoder, embeds, corrupted)
        if int(clean_logits[0, answers].argmax()) != gold:
            clean_wrong += 1
            if settings.filter:
                continue
        elif int(corrupted_logits.softmax(-1)[:, answers].mean(0).argmax()) == gold:
            corrupted_right += 1
            if settings.filter:
                continue
        clean = _outcome(clean_logits, answers, gold)
        damaged = _outcome(corrupted_logits, answers, gold)
        restored = _restore_all(decoder, prompt, runs, damaged, answers, gold, settings)
        kept.append(prompt.example)
        rows.append((clean, damaged, restored))
    counts = TraceCounts(len(prompts), clean_wrong, corrupted_right, len(kept))
    if not kept:
        raise DataError(
            f"the trace kept none of {counts.seen} examples: the clean run was wrong on {clean_wrong}, the corrupted "
            f"run still right on {corrupted_right}; trace more examples (trace.examples) or corrupt more (trace.noise)"
        )
    return Trace(
        engine="exact",
        corruption=settings.corruption.value,
        corrupted_tokens=settings.tokens.value if not twins else "opinion",
        noise_sd=sd,
        samples=1 if twins else settings.samples,
        window=settings.window,
        parts=tuple(settings.parts),
        roles=tuple(settings.roles),
        layers=decoder.layers,
        counts=counts,
        seconds=time.perf_counter() - began,
        example_ids=tuple(e.id for e in kept),
        sentence_ids=tuple(e.sentence_id for e in kept),
        clean=_means([c.probability for c, _, _ in rows]),
        corrupted=_means([c.probability for _, c, _ in rows]),
        restored=np.stack([r[0] for _, _, r in rows]),
        clean_margin=_means([c.margin for c, _, _ in rows]),
        corrupted_margin=_means([c.margin for _, c, _ in rows]),
        restored_margin=np.stack([r[1] for _, _, r in rows]),
    )


def _first_tokens(labels: Labels) -> list[int]:
    first = [labels[p][0] for p in POLARITIES]
    if len(set(first)) < len(first):
        raise ModelError(
            "tracing reads the first token of each label word, and two of the words share it; "
            "choose other prompt.labels or another prompt.separator"
        )
    return first


def _twins(
    lm: LanguageModel, prompts: Sequence[Prompt], settings: PromptSettings
) -> dict[str, Float[Tensor, "1 pos hidden"]]:
    """Embeddings of the counterfactual prompts that line up with the clean ones, by example id."""
    decoder = Decoder(lm.model)
    pairs = [(p, twin) for p in prompts if (twin := counterfactual(p.example))]
    twins = encode([twin for _, twin in pairs], lm.tokenizer, settings)
    embeds = {p.example.id: twin_embeds(decoder, p, twin) for (p, _), twin in zip(pairs, twins, strict=True)}
    return {example: e for example, e in embeds.items() if e is not None}


def _run_both(decoder: Decoder, embeds: Tensor, corrupted: Tensor) -> tuple[Runs, Tensor, Tensor]:
    """The states of both runs, and the logits at their last position."""
    clean: dict[Part, list[Tensor]] = {part: [] for part in (Part.block, Part.attn, Part.mlp)}
    frame = decoder.begin(embeds)
    hidden = frame.hidden
    for layer in range(decoder.layers):
        with ExitStack() as stack:
            outputs = {
                part: stack.enter_context(recorded(decoder.module(Site(layer, part)))) for part in (Part.attn, Part.mlp)
            }
            hidden = decoder.run(hidden, layer, layer + 1, frame)
        for part, (output,) in outputs.items():
            clean[part].append(output.reshape(hidden.shape)[0])
        clean[Part.block].append(hidden[0])
    cache = DynamicCache()
    frame = decoder.begin(corrupted, cache)
    entering = [frame.hidden]
    for layer in range(decoder.layers):
        entering.append(decoder.run(entering[-1], layer, layer + 1, frame))
    both = decoder.logits(torch.cat((hidden[:, -1], entering[-1][:, -1]))).float()
    changed = (corrupted != embeds).any(-1).any(0).nonzero()
    first_changed = int(changed[0]) if len(changed) else embeds.shape[1]
    return Runs(clean, entering, cache, embeds, first_changed), both[:1], both[1:]


def _outcome(logits: Float[Tensor, "row vocabulary"], answers: list[int], gold: int) -> Outcome:
    labels = logits[:, answers]
    others = [i for i in range(len(answers)) if i != gold]
    return Outcome(logits.softmax(-1)[:, answers[gold]], labels[:, gold] - labels[:, others].amax(1))


def _restore_all(
    decoder: Decoder,
    prompt: Prompt,
    runs: Runs,
    damaged: Outcome,
    answers: list[int],
    gold: int,
    settings: TraceSettings,
) -> tuple[np.ndarray, np.ndarray]:
    """Mean gold probability and margin over the samples, each of shape (part, role, layer)."""
    shape = (len(settings.parts), len(settings.roles), decoder.layers)
    probability, margin = np.full(shape, np.nan), np.full(shape, np.nan)
    for r, role in enumerate(settings.roles):
        positions = prompt.positions(role)
        if not positions:
            continue
        probability[:, r], margin[:, r] = damaged.probability.mean().item(), damaged.margin.mean().item()
        positions = [p for p in positions if p >= runs.first_changed]  # before it, both runs are the same
        if not positions:
            continue
        for batch, hidden in _restored(decoder, runs, positions, settings):
            outcome = _outcome(decoder.logits(hidden).float(), answers, gold)
            p = outcome.probability.view(len(batch), -1).mean(1).tolist()
            m = outcome.margin.view(len(batch), -1).mean(1).tolist()
            for cell, cell_p, cell_m in zip(batch, p, m, strict=True):
                part = settings.parts.index(cell.part)
                probability[part, r, cell.layer], margin[part, r, cell.layer] = cell_p, cell_m
    return probability, margin


def _restored(
    decoder: Decoder, runs: Runs, positions: list[int], settings: TraceSettings
) -> Iterator[tuple[list[Cell], Float[Tensor, "row hidden"]]]:
    """Batches of cells with the states they leave the model with at the last position.

    Rows go cell by cell and, within a cell, sample by sample.
    """
    first = positions[0]
    samples, length, _ = runs.entering[0].shape
    every = sorted(cells(settings.parts, decoder.layers, settings.window), key=lambda cell: cell.joins)
    size = max(1, settings.batch_tokens // (samples * (length - first)))
    past = PrefixCache(runs.keys_values, first) if first else None
    frame = decoder.begin(runs.embeds[:, first:], past)
    for i in range(0, len(every), size):
        batch = every[i : i + size]
        yield batch, _sweep(decoder, runs, batch, positions, frame)


def _sweep(
    decoder: Decoder, runs: Runs, batch: list[Cell], positions: list[int], frame: Frame
) -> Float[Tensor, "row hidden"]:
    """Run all cells of `batch` (in the order they join) to the end, from the first restored position on."""
    first = positions[0]
    where = torch.tensor(positions, device=decoder.device) - first
    samples, length, width = runs.entering[0].shape
    hidden = runs.entering[0].new_empty(0, length - first, width)
    for layer in range(batch[0].joins, decoder.layers + 1):
        for cell in (c for c in batch if c.joins == layer):
            row = runs.entering[layer][:, first:]
            if cell.part is Part.block:
                row = row.index_copy(1, where, _clean(runs, cell.part, cell.layer, positions, samples))
            hidden = torch.cat((hidden, row))
        if layer == decoder.layers:
            break
        with ExitStack() as stack:
            for part in (Part.attn, Part.mlp):
                inside = [c.part is part and c.start <= layer < c.stop for c in batch if c.joins <= layer]
                if any(inside):
                    rows = torch.tensor(inside, device=decoder.device).repeat_interleave(samples).nonzero()
                    edit = _put_back(hidden.shape, rows, where, runs.clean[part][layer][positions])
                    stack.enter_context(edited(decoder.module(Site(layer, part)), edit))
            hidden = decoder.run(hidden, layer, layer + 1, frame)
    return hidden[:, -1]


def _clean(
    runs: Runs, part: Part, layer: int, positions: list[int], samples: int
) -> Float[Tensor, "sample restored hidden"]:
    return runs.clean[part][layer][positions].expand(samples, -1, -1)


def _put_back(
    shape: torch.Size, rows: Tensor, where: Tensor, clean: Float[Tensor, "restored hidden"]
) -> Callable[[Tensor], Tensor]:
    """An edit that puts `clean` at positions `where` of `rows`."""

    def edit(output: Tensor) -> Tensor:
        restored = output.reshape(shape).clone()
        restored[rows, where] = clean
        return restored.reshape(output.shape)

    return edit


def _means(values: Sequence[Float[Tensor, " row"]]) -> Float[np.ndarray, " example"]:
    return np.array([float(v.mean()) for v in values])
