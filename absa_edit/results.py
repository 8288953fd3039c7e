"""What a run found, as frozen records: `results.json` is a `RunRecord`.

Data, traces and plans are in `records.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from pydantic import ConfigDict

from absa_edit.html_table import table
from absa_edit.records import DataSummary, EditPlan, Part, Role, TraceCounts
from absa_edit.table import Section
from absa_edit.tasks.absc import ABSC

SCHEMA = 1
"""Version of `results.json`; raised when a field changes its meaning or goes."""


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

    def plain(self) -> str:
        """`0.715 [0.680, 0.749]`: value and interval as they are."""
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


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
    """One row an epoch: epoch, loss, dev_accuracy, dev_macro_f1, dev_log_loss, seconds; a method may add its own."""
    flops: float = 0.0
    """Of the matrix products of all steps, forward and backward: counted on the first batch, scaled by tokens; 0 where
    they were not counted."""
    precision: str | None = None
    """Of these products; None for what was trained before this was kept."""
    scale: float | None = None
    """What the trained change was multiplied by, where that was chosen on development data."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """One line of `predictions.jsonl`."""

    method: str
    test: str
    id: str
    sentence_id: str
    text: str
    aspect: str
    gold: str
    predicted: str
    probabilities: dict[str, float]
    """Of the labels, normalised over them, in label order."""


@dataclass(frozen=True, slots=True)
class Score:
    """Scores of one method on one test set; F1 is over all labels of the task always."""

    accuracy: Interval
    macro_f1: Interval
    f1: dict[str, float]
    confusion: tuple[tuple[int, ...], ...]
    """Rows are gold, columns predicted, in label order."""
    log_loss: Interval | None = None
    """Mean -log of the gold label's probability among the labels, in nats; lower is better. None in records from before
    it was kept."""

    def _repr_html_(self) -> str:
        """Accuracy, macro-F1 and log-loss with their intervals, F1 of each class, and the confusion."""
        both = (("accuracy (%)", self.accuracy), ("macro-F1 (%)", self.macro_f1))
        first = [[name, f"{100 * i.value:.1f}", f"{100 * i.low:.1f} to {100 * i.high:.1f}"] for name, i in both]
        if (loss := self.log_loss) is not None:
            first.append(["log-loss", f"{loss.value:.3f}", f"{loss.low:.3f} to {loss.high:.3f}"])
        counts = (
            [label, *map(str, row), f"{100 * self.f1[label]:.1f}"]
            for label, row in zip(self.f1, self.confusion, strict=False)
        )
        head = ["", *self.f1, "F1"]
        return table("scores", ["", "value", "95 %"], first) + table(
            f"gold down, predicted across, n = {self.accuracy.n}", head, counts
        )


COVERAGES = (0.5, 0.8, 1.0)
"""Shares of the examples, the most confident ones, of which `Reliability` tells how many are answered wrong."""


@dataclass(frozen=True, slots=True)
class Reliability:
    """How far the probabilities of one method on one test set can be trusted; of all of them lower is better."""

    log_loss: Interval
    brier: Interval
    """Squared distance from the gold label's unit vector, 0 to 2."""
    ece: Interval
    """Expected calibration error of the likeliest label, in 15 equally wide bins (Guo et al. 2017, arXiv 1706.04599).
    Resampling adds noise to each bin, so that the interval of a small one may lie above it."""
    aurc: Interval
    """Area under the risk-coverage curve: the share of wrong answers among the k most confident, in the mean over k."""
    risks: tuple[float, ...]
    """Share of wrong answers among the most confident examples, at each of `COVERAGES`."""


@dataclass(frozen=True, slots=True)
class Temperature:
    """What a method's label log-probabilities are divided by so that they fit development data best."""

    value: float
    n: int
    """Development examples."""
    log_loss: float
    """On these, without it."""
    fitted_log_loss: float
    """On these, with it."""


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
    """Benjamini-Hochberg over all comparisons of the run in this metric, on test sets of the same standing."""
    n: int


@dataclass(frozen=True, slots=True)
class Pooled:
    """Paired difference a - b in the mean over the test sets of one question, each of which weighs the same.

    By permutation over sentences within each test set.
    """

    a: str
    b: str
    question: str
    """What the test sets have in common: `own test`, `out of domain`, or `other set` where that is not known."""
    tests: tuple[str, ...]
    metric: str
    difference: float
    low: float
    high: float
    p: float
    p_corrected: float
    """Benjamini-Hochberg over all pairs of the run, in this metric and question."""
    n: int
    """Examples in all test sets."""


@dataclass(frozen=True, slots=True)
class Sampled:
    """How answers that are drawn score, each right only where it is the gold label's word and nothing else."""

    accuracy: Interval
    no_label: int
    """How many are no label's word."""


@dataclass(frozen=True, slots=True)
class Retention:
    """What a model does besides the task that it was trained on; compare it with the base model's."""

    perplexity: Interval | None
    """On neutral text, over paragraphs; None where it is not finite."""
    words: int
    """Of that text."""
    sentiment: dict[str, Score]
    """Of sentences of no domain, asked in another form than the task's; by set, empty without `score.retention`."""
    elsewhere: dict[str, Interval]
    """Log-loss on the test sets that are not the training set's own."""


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
    perplexity: float | None
    """Of the model after the method on neutral text; compare with `zero_shot`. None where it is not finite."""
    bytes_on_disk: int
    """Size of the trained parameters as safetensors."""
    frozen_checked: bool
    """True when everything outside the plan was found bit-identical to the base after training."""
    plan: EditPlan | None
    scores: dict[str, Score]
    leak_free: dict[str, Score] = field(default_factory=dict)
    """Of the same predictions on the rows that are not in the training file, for test sets that keep leaked ones."""
    sampled: dict[str, Sampled] = field(default_factory=dict)
    """With `score.sampled`, by test set."""
    reliability: dict[str, Reliability] = field(default_factory=dict)
    """Of the predictions, by test set; with `score.calibration`."""
    temperature: Temperature | None = None
    """Fitted on development data, with `score.calibration`; None where these do not determine it."""
    with_temperature: dict[str, Reliability] = field(default_factory=dict)
    """Of the same predictions with that temperature."""
    retention: Retention | None = None
    """Of the model after the method; None in records from before it was kept."""
    is_base: bool = False
    """Whether it is the base model, asked as the run asks."""


@dataclass(frozen=True, slots=True)
class Peak:
    """The cell of the averaged trace with the largest indirect effect."""

    part: Part
    layer: int
    role: Role
    effect: Interval
    estimated: bool = False
    """Whether its restorations were estimated, not run."""


@dataclass(frozen=True, slots=True)
class PartDepth:
    """Where along the depth a part's effect sits; layers as a share of the model's depth, 0 to 1."""

    peak_layer: Interval
    centre_of_mass: Interval
    middle_third_share: Interval


@dataclass(frozen=True, slots=True)
class Agreement:
    """An estimated trace beside the exact one, on the same `n` examples."""

    rank_correlation: Interval
    """Spearman's, of the tables of average indirect effects."""
    overlap: Interval
    """Share of the `top` strongest cells that both have."""
    top: int


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
    agreement: Agreement | None = None
    """With the exact engine, of a trace that was estimated."""
    dtype: str = "float32"
    """Of the trace's matrix products; bfloat16 makes it an approximation."""
    cells_run: int | None = None
    """Of the engine auto: cells of the table (part x role x layer) that were run; the others are estimates."""


@dataclass(frozen=True, slots=True)
class Adaptation:
    """Which model was traced, and why."""

    adapted: bool
    """Whether the model was adapted to the task before it was traced."""
    choice: str
    """What `trace.model` asked for."""
    base_macro_f1: Interval | None
    """Of the base model on development data; None where the choice did not depend on it."""
    by_frequency: float | None
    """The macro-F1 there of the best guess that knows the labels' frequencies alone."""
    method: str | None
    examples: int
    """Training examples of the fit."""
    fit: Fit | None


@dataclass(frozen=True, slots=True)
class TraceAgain:
    """The trace of a model after it was edited, beside the trace that its plan was made of."""

    method: str
    trace: TraceSummary
    n: int
    """Examples that both traces kept; the agreement is over these."""
    agreement: Agreement | None
    """Of the two traces; None where too little is in both to be ranked."""


@dataclass(frozen=True, slots=True)
class ModelSummary:
    """The language model that a run stood on."""

    name: str
    """Last part of `source`, as in the run folder's path."""
    source: str
    """A name that the package knows (`reviewlm`), a hub id or a folder."""
    sha256: str
    """Of the weight files, or the hub revision."""
    parameters: int
    layers: int
    dtype: str
    weights: str = ""
    """What was done to them before they came here, e.g. `dequantised from Q4_1`."""


@dataclass(frozen=True, slots=True)
class ExportRecord:
    """What was exported and how exactly it answers like the model in memory."""

    method: str
    adapter: str | None
    merged: str | None
    max_logit_gap: float
    """Largest absolute difference of a label's log-probability over all test predictions."""
    agreement: float
    """Share of test predictions with the same label: 1.0, or the run fails; of merged half weights 0.99 is enough."""
    n: int
    not_merged: str | None = None
    """Why there is no merged checkpoint though one was asked for."""


@dataclass(frozen=True, slots=True)
class AnalysisRecord:
    """What an analysis found: its own record as plain JSON values, and the section that reports show."""

    record: dict[str, Any]
    section: Section


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
    """By test set; those over several test sets are in `pooled`."""
    export: ExportRecord | None
    seconds: dict[str, float]
    """Wall time of each stage of this run; next to nothing where what it makes was found on disk."""
    versions: dict[str, str]
    git: str | None
    config_hash: str
    task: str = "absc"
    labels: tuple[str, ...] = ABSC.labels
    """Of the task, in the order of every table."""
    analyses: dict[str, AnalysisRecord] = field(default_factory=dict)
    adaptation: Adaptation | None = None
    """Which model `trace` is of; None without a trace, and in records from before there was a choice (the base)."""
    base_trace: TraceSummary | None = None
    """Of the base model, where it was traced beside the adapted one."""
    trace_again: TraceAgain | None = None
    export_failure: str | None = None
    """Why an export that was asked for is not there, or not all of it: it did not answer like the model in memory."""
    before: Retention | None = None
    """Of the base model."""
    pooled: tuple[Pooled, ...] = ()
    """The same pairs over all test sets of a question that has several."""
