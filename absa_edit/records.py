"""What flows between the stages, as frozen records: data, traces and plans; what a run found is in `results.py`.

    Example -> Trace -> EditPlan -> Fit -> Predictions -> Score -> RunRecord

How they are kept on disk is in `storage.py`.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from typing import Any, ClassVar

import numpy as np
from pydantic import ConfigDict

from absa_edit.html_table import filled, paragraph, shaded, table


class Part(StrEnum):
    """Where in a decoder block a hidden state is read or restored."""

    block = "block"
    """Residual stream after the block."""
    attn = "attn"
    """Output of the attention sub-layer (after its output projection)."""
    mlp = "mlp"
    """Output of the MLP sub-layer (after its down projection)."""
    head = "head"
    """One head's slice of the input of the attention output projection."""


class Role(StrEnum):
    """What a prompt token stands for; a token has exactly one role."""

    instruction = "instruction"
    """Everything before the sentence, the tokenizer's own first token included."""
    sentence = "sentence"
    """Words of a sentence that is asked about as a whole."""
    before = "before"
    """Words of the sentence before the aspect."""
    aspect = "aspect"
    """The aspect in the sentence."""
    after = "after"
    """Words of the sentence after the aspect."""
    punctuation = "punctuation"
    """Tokens of the sentence without a letter or digit."""
    question = "question"
    """Everything after the sentence but the next two."""
    aspect_again = "aspect_again"
    """The aspect as the question repeats it."""
    last = "last"
    """The last prompt token, where the answer is read."""


@dataclass(frozen=True, slots=True)
class Twin:
    """The counterfactual of an example: its sentence with one opinion word turned."""

    text: str
    start: int
    end: int
    label: str


@dataclass(frozen=True, slots=True)
class Example:
    """One aspect in one sentence; `text[start:end] == aspect`, offsets in characters, half-open.

    An example about the whole sentence has an empty aspect at 0.
    """

    id: str
    sentence_id: str
    text: str
    aspect: str
    start: int
    end: int
    label: str
    domain: str
    twin: Twin | None = None


@dataclass(frozen=True, slots=True)
class Dataset:
    """The examples of one split, with where they came from and what was left out."""

    name: str
    """Set name that every table uses; a bundled sample is called `<domain>-sample`."""
    split: str
    source: str
    """Format or origin read: xml, jsonl, seg, csv, parquet, hub."""
    examples: tuple[Example, ...]
    sha256: dict[str, str]
    """SHA-256 of each file read, by file name."""
    labels: tuple[str, ...]
    """Of the task, in the order of every table."""
    dropped: dict[str, int] = field(default_factory=dict)
    """Rows left out or worth knowing of, by reason (conflict, leaked, several_occurrences, ...)."""
    leaked: frozenset[str] = frozenset()
    """Ids of the rows that are in the training file, too, and were kept."""

    def __len__(self) -> int:
        return len(self.examples)

    def counts(self) -> dict[str, int]:
        """Examples per label, absent ones as 0."""
        return {label: sum(e.label == label for e in self.examples) for label in self.labels}

    def summary(self) -> DataSummary:
        """The record of this split that goes into `results.json`."""
        return DataSummary(self.name, self.split, self.source, self.sha256, len(self), self.counts(), self.dropped)

    def with_examples(self, examples: tuple[Example, ...], **dropped: int) -> Dataset:
        """This set with other examples, and what was dropped on the way counted."""
        return replace(self, examples=examples, dropped={**self.dropped, **dropped})


@dataclass(frozen=True, slots=True)
class DataSummary:
    """What `results.json` says of a data split."""

    name: str
    split: str
    source: str
    sha256: dict[str, str]
    n: int
    counts: dict[str, int]
    dropped: dict[str, int]


@dataclass(frozen=True, slots=True, order=True)
class Site:
    """One component of the model: `layer` counts from 0, `index` is the head (part `head` only)."""

    layer: int
    part: Part
    index: int | None = None

    def __str__(self) -> str:
        head = "" if self.index is None else f".{self.index}"
        return f"{self.part.value}{head}@{self.layer}"


@dataclass(frozen=True, slots=True)
class Target:
    """A site to edit with a delta of at most `rank` (the `delta` method trains it in full)."""

    site: Site
    rank: int


@dataclass(frozen=True, slots=True)
class EditPlan:
    """Where to edit: a small file that people can read, change and pass in again."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    source: str
    """The localizer that made it."""
    targets: tuple[Target, ...]
    parameters: int
    """Trainable parameters of the rank-limited deltas together: the budget that plans are compared at."""
    stability: float | None = None
    """Mean Jaccard overlap of the targets over bootstrap resamples of the sentences; 1 is the same plan always."""

    def layers(self) -> tuple[int, ...]:
        """The edited layers, ascending, each once."""
        return tuple(sorted({t.site.layer for t in self.targets}))

    def __repr__(self) -> str:
        parts = "+".join(sorted({t.site.part.value for t in self.targets}))
        layers = ",".join(map(str, self.layers()))
        steady = "" if self.stability is None else f", stability {self.stability:.2f}"
        return f"EditPlan({self.source}: {parts} of layers {layers}, {self.parameters:,} parameters{steady})"

    def _repr_html_(self) -> str:
        """The ranks of the edited sites: parts down, layers across."""
        ranks = {(str(t.site.part.value), t.site.index, t.site.layer): t.rank for t in self.targets}
        rows = sorted({key[:2] for key in ranks}, key=lambda row: (row[0], -1 if row[1] is None else row[1]))
        layers = range(max(self.layers(), default=0) + 1)
        body = (
            [part if index is None else f"{part} {index}"]
            + [filled(str(ranks[part, index, i])) if (part, index, i) in ranks else "" for i in layers]
            for part, index in rows
        )
        return paragraph(repr(self)) + table("rank", ["", *map(str, layers)], body)


@dataclass(frozen=True, slots=True)
class TraceCounts:
    """How many examples the paper's filter kept (clean run right, corrupted run wrong)."""

    seen: int
    clean_wrong: int
    corrupted_right: int
    kept: int

    @property
    def unfiltered(self) -> bool:
        """Whether examples were kept that the filter would have left out."""
        return self.kept + self.clean_wrong + self.corrupted_right > self.seen


@dataclass(frozen=True, slots=True)
class Trace:
    """Answer probabilities of the clean, corrupted and restored runs of the kept examples.

    Probabilities are of the gold label's first token among those of the label words; `*_margin` is the logit of the
    gold label minus the largest of the others. Corrupted and restored figures are
    means over the noise samples. Roles that an example lacks are nan in `restored*`. In an estimated trace the
    effect in `restored*_margin` is that on the log-odds of the gold label, all others taken together.
    """

    engine: str
    corruption: str
    corrupted_tokens: str
    noise_sd: float
    """Standard deviation of the noise in embedding units; 0 for a counterfactual."""
    samples: int
    window: int
    """Layers restored together for attn and mlp, centred on the layer."""
    parts: tuple[Part, ...]
    """Of `restored`; heads have an array of their own."""
    roles: tuple[Role, ...]
    layers: int
    counts: TraceCounts
    seconds: float
    example_ids: tuple[str, ...]
    sentence_ids: tuple[str, ...]
    clean: np.ndarray  # example
    corrupted: np.ndarray  # example
    restored: np.ndarray  # example part role layer
    clean_margin: np.ndarray
    corrupted_margin: np.ndarray
    restored_margin: np.ndarray
    restored_heads: np.ndarray = field(default_factory=lambda: np.zeros(0))  # example role layer head; empty without
    restored_heads_margin: np.ndarray = field(default_factory=lambda: np.zeros(0))
    dtype: str = "float32"
    """Of the matrix products, of the engine `auto` those of its estimates; bfloat16 makes them an approximation."""
    exact_cells: tuple[tuple[str, str, int], ...] = ()
    """Part, role and layer of the cells that the engine `auto` ran; its others are estimates."""

    def of(self, ids: Collection[str]) -> Trace:
        """The trace of some of its examples."""
        kept = [i for i, example in enumerate(self.example_ids) if example in ids]
        field_values = {f.name: getattr(self, f.name) for f in fields(self)}
        cut: dict[str, Any] = {
            n: value[kept] for n, value in field_values.items() if isinstance(value, np.ndarray) and value.size
        }
        cut |= {name: tuple(field_values[name][i] for i in kept) for name in ("example_ids", "sentence_ids")}
        return replace(self, **cut)

    def mean_effects(self) -> np.ndarray:
        """Average indirect effect by part, role and layer; nan for roles that no example has."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Mean of empty slice", RuntimeWarning)
            return np.asarray(np.nanmean(self.restored - self.corrupted[:, None, None, None], axis=0))

    def __repr__(self) -> str:
        c = self.counts
        text = f"Trace({self.engine}, {self.corruption} on {self.corrupted_tokens}, {c.kept} of {c.seen} examples"
        if not self.parts:
            return text + ")"
        mean = self.mean_effects()
        part, role, layer = np.unravel_index(np.nanargmax(mean), mean.shape)
        where = f"{self.parts[part].value}@{layer} at {self.roles[role].value}"
        return f"{text}, peak {where} {100 * mean[part, role, layer]:+.1f} points)"

    def _repr_html_(self) -> str:
        """The average indirect effects in points, a table a part: roles down, layers across."""
        mean = 100 * self.mean_effects()
        largest = float(np.nanmax(np.abs(mean), initial=1e-9))
        head = ["", *map(str, range(self.layers))]
        text = paragraph(f"{self!r}; effects in points of p(gold)")
        for part, effects in zip(self.parts, mean, strict=True):
            rows = zip(self.roles, effects, strict=True)
            text += table(part.value, head, ([role.value, *(shaded(v, largest) for v in row)] for role, row in rows))
        return text


@dataclass(frozen=True, slots=True)
class TokenGrid:
    """The trace of one example by token; figures are as in `Trace`."""

    id: str
    tokens: tuple[str, ...]
    """Text of each prompt token, without the space before it."""
    roles: tuple[Role, ...]
    parts: tuple[Part, ...]
    clean: float
    corrupted: float
    restored: np.ndarray  # part pos layer
