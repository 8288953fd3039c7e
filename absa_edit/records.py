"""What flows between the stages, as frozen records, and how a record is kept on disk.

    Example -> Trace -> EditPlan -> Fit -> Predictions -> Score -> RunRecord

Records that hold numbers and names are JSON, checked field by field on reading (`load`); arrays are
safetensors (`save_trace`); predictions are JSON lines. Every write is atomic: a file is whole or absent.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
from pydantic import ConfigDict, TypeAdapter, ValidationError
from safetensors.numpy import load_file, save_file

from absa_edit.errors import RecordError

SCHEMA = 1
"""Version of `results.json`; raised when a field changes its meaning or goes."""

R = TypeVar("R")


class Polarity(StrEnum):
    """The three sentiments; their order is the label order of every array and table."""

    positive = "positive"
    negative = "negative"
    neutral = "neutral"


POLARITIES: tuple[Polarity, ...] = tuple(Polarity)


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
    polarity: Polarity


@dataclass(frozen=True, slots=True)
class Example:
    """One aspect in one sentence; `text[start:end] == aspect`, offsets in characters, half-open."""

    id: str
    sentence_id: str
    text: str
    aspect: str
    start: int
    end: int
    polarity: Polarity
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
    dropped: dict[str, int] = field(default_factory=dict)
    """Rows left out or worth knowing of, by reason (conflict, leaked, several_occurrences, ...)."""

    def __len__(self) -> int:
        return len(self.examples)

    def counts(self) -> dict[str, int]:
        """Examples per polarity, absent ones as 0."""
        return {p.value: sum(e.polarity is p for e in self.examples) for p in POLARITIES}

    def summary(self) -> DataSummary:
        """The record of this split that goes into `results.json`."""
        return DataSummary(
            self.name, self.split, self.source, self.sha256, len(self), self.counts(), self.dropped
        )

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
    """The localiser that made it."""
    targets: tuple[Target, ...]
    parameters: int
    """Trainable parameters of the rank-limited deltas together: the budget that plans are compared at."""
    stability: float | None = None
    """Mean Jaccard overlap of the targets over bootstrap resamples of the trace; 1 is the same plan always."""

    def layers(self) -> tuple[int, ...]:
        """The edited layers, ascending, each once."""
        return tuple(sorted({t.site.layer for t in self.targets}))


@dataclass(frozen=True, slots=True)
class TraceCounts:
    """How many examples the paper's filter kept (clean run right, corrupted run wrong)."""

    seen: int
    clean_wrong: int
    corrupted_right: int
    kept: int


@dataclass(frozen=True, slots=True)
class Trace:
    """Answer probabilities of the clean, corrupted and restored runs of the kept examples.

    Probabilities are of the gold label's first token under the whole vocabulary; `*_margin` is the
    logit of the gold label minus the larger of the other two. Corrupted and restored figures are
    means over the noise samples. Roles that an example lacks are nan in `restored*`.
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


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure with its 95 % interval and the number of examples it stands on."""

    value: float
    low: float
    high: float
    n: int

    def percent(self) -> str:
        """`71.5 [68.0, 74.9]`: value and interval in percent."""
        return f"{100 * self.value:.1f} [{100 * self.low:.1f}, {100 * self.high:.1f}]"


@dataclass(frozen=True, slots=True)
class Fit:
    """How a training went: steps, seconds, memory and the development score by epoch."""

    steps: int
    epochs: int
    seconds: float
    peak_bytes: int
    """Largest resident (CPU) or allocated (GPU) memory of the process during the fit."""
    batch_size: int
    """Examples a step, after any halving for memory is made up for by accumulation."""
    micro_batch: int
    best_epoch: int
    best_macro_f1: float
    history: tuple[dict[str, float], ...]
    """One row an epoch: epoch, loss, dev_accuracy, dev_macro_f1, seconds."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """One line of `predictions.jsonl`."""

    method: str
    test: str
    id: str
    sentence_id: str
    text: str
    aspect: str
    gold: Polarity
    predicted: Polarity
    probabilities: dict[str, float]
    """Of the three labels, normalised over them, in label order."""


@dataclass(frozen=True, slots=True)
class Score:
    """Scores of one method on one test set; F1 is over the three labels always."""

    accuracy: Interval
    macro_f1: Interval
    f1: dict[str, float]
    confusion: tuple[tuple[int, ...], ...]
    """Rows are gold, columns predicted, in label order."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Paired difference a - b on one test set, by permutation over sentences."""

    a: str
    b: str
    test: str
    metric: str
    difference: float
    low: float
    high: float
    p: float
    p_corrected: float
    """Benjamini-Hochberg over all comparisons of the run."""
    n: int


@dataclass(frozen=True, slots=True)
class MethodRecord:
    """What one method trained, what it cost and how it scored."""

    kind: str
    trainable: int
    share: float
    touched_share: float
    """Share of the base weights' entries that the method may change once merged."""
    lr: float | None
    fit: Fit | None
    score_seconds: float
    perplexity: float
    """Of the model after the method on neutral text; compare with `zero_shot`."""
    frozen_checked: bool
    """True when everything outside the plan was found bit-identical to the base after training."""
    plan: EditPlan | None
    scores: dict[str, Score]


@dataclass(frozen=True, slots=True)
class Peak:
    """The cell of the averaged trace with the largest indirect effect."""

    part: Part
    layer: int
    role: Role
    effect: Interval


@dataclass(frozen=True, slots=True)
class PartDepth:
    """Where along the depth a part's effect sits; layers as a share of the model's depth, 0 to 1."""

    peak_layer: Interval
    centre_of_mass: Interval
    middle_third_share: Interval


@dataclass(frozen=True, slots=True)
class TraceSummary:
    """What `results.json` says of the trace; the arrays are in `trace/`."""

    engine: str
    corruption: str
    corrupted_tokens: str
    window: int
    samples: int
    counts: TraceCounts
    seconds: float
    total_effect: Interval
    peak: Peak
    depth: dict[str, PartDepth]
    middle_third_share: dict[str, float]


@dataclass(frozen=True, slots=True)
class ModelSummary:
    """The language model that a run stood on."""

    name: str
    sha256: str
    """Of the weight files, or the hub revision."""
    parameters: int
    layers: int
    dtype: str


@dataclass(frozen=True, slots=True)
class ExportRecord:
    """What was exported and how exactly it answers like the model in memory."""

    method: str
    adapter: str | None
    merged: str | None
    max_logit_gap: float
    """Largest absolute difference of a label's log-probability over all test predictions."""
    agreement: float
    """Share of test predictions with the same label; anything but 1.0 fails the run."""
    n: int


@dataclass(frozen=True, slots=True)
class RunRecord:
    """`results.json`: everything a run found, in one file."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    schema: int
    experiment: str
    seed: int
    data: dict[str, DataSummary]
    """Keys `train`, `dev`, and `test/<name>` for each test set."""
    model: ModelSummary
    trace: TraceSummary | None
    plan: EditPlan | None
    methods: dict[str, MethodRecord]
    comparisons: tuple[Comparison, ...]
    export: ExportRecord | None
    seconds: dict[str, float]
    """Wall time of each stage of this run; 0.0 where the stage was found on disk."""
    versions: dict[str, str]
    git: str | None
    config_hash: str


# ---- on disk


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def to_json(record: object) -> Any:
    """`record` as plain JSON values (lists, dicts, strings, numbers)."""
    return TypeAdapter(type(record)).dump_python(record, mode="json")


def write_json(value: object, path: Path) -> None:
    """Write a record, or plain JSON values, to `path`."""
    plain = to_json(value) if is_dataclass(value) else value
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(plain, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def load(kind: type[R], path: Path) -> R:
    """The record of type `kind` in the JSON file at `path`, every field checked.

    Raises `RecordError` naming the file and the field when it is not one.
    """
    try:
        return TypeAdapter(kind).validate_json(path.read_text(encoding="utf-8"))
    except ValidationError as error:
        where = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors()[:3])
        raise RecordError(f"{path} is not a {kind.__name__}: {where}") from None


def content_hash(*parts: object) -> str:
    """Sixteen hexadecimal digits that depend on the content of `parts` (records or JSON values)."""
    plain = [asdict(p) if is_dataclass(p) and not isinstance(p, type) else p for p in parts]
    text = json.dumps(plain, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


_ARRAYS = tuple(name for stem in ("clean", "corrupted", "restored") for name in (stem, f"{stem}_margin"))


def save_trace(trace: Trace, folder: Path, key: str) -> None:
    """Write `trace.safetensors`, then `trace.json` (its presence says that the trace is whole)."""
    with atomic(folder / "trace.safetensors") as temporary:
        save_file({name: np.ascontiguousarray(getattr(trace, name)) for name in _ARRAYS}, temporary)
    about = {f.name: getattr(trace, f.name) for f in fields(trace) if f.name not in _ARRAYS}
    about["counts"] = to_json(trace.counts)
    write_json({"key": key, **about}, folder / "trace.json")


def load_trace(folder: Path, key: str | None = None) -> Trace | None:
    """The trace in `folder`; None when there is none, or it was made with another `key`."""
    path = folder / "trace.json"
    if not path.exists():
        return None
    about = json.loads(path.read_text(encoding="utf-8"))
    if key is not None and about["key"] != key:
        return None
    del about["key"]
    about["parts"] = tuple(map(Part, about["parts"]))
    about["roles"] = tuple(map(Role, about["roles"]))
    about["counts"] = TraceCounts(**about["counts"])
    for name in ("example_ids", "sentence_ids"):
        about[name] = tuple(about[name])
    return Trace(**about, **load_file(folder / "trace.safetensors"))


def save_predictions(predictions: tuple[Prediction, ...], path: Path) -> None:
    """Write one JSON object a line."""
    with atomic(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for row in predictions:
            file.write(json.dumps(to_json(row), ensure_ascii=False) + "\n")


def load_predictions(path: Path) -> tuple[Prediction, ...]:
    """The rows of a `predictions.jsonl`."""
    one = TypeAdapter(Prediction)
    with path.open(encoding="utf-8") as file:
        return tuple(one.validate_json(line) for line in file)
