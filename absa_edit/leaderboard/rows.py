"""One finished run of a benchmark as a row, and the answers that it gave, which later comparisons need.

A row has the shape of the records of PEFT's `method_comparison` (`run_info`, `train_info`, `meta_info`), as far as the
fields agree, so that tools for these read it; what PEFT has no place for (scores by test set, retention, the plan and
the trace) stands beside. Answers are kept without a word of the data: of each example the predicted label and
-log p(gold), in the order of the test set, whose gold labels and sentence numbers are kept once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float
from pydantic import ConfigDict
from safetensors.numpy import load_file, save_file

from absa_edit.errors import RecordError
from absa_edit.leaderboard.benchmark import Job
from absa_edit.leaderboard.machine import machine
from absa_edit.records import Part, Role
from absa_edit.resampling import label_numbers, sentence_groups
from absa_edit.results import Adaptation, Interval, MethodRecord, Prediction, RunRecord, TraceSummary
from absa_edit.storage import atomic, content_hash, load, load_predictions, load_trace, write_json
from absa_edit.tracing.effects import Effects, trace_effects

SCHEMA = 1
"""Version of a row; raised when a field changes its meaning or goes."""
DRAWS = 2000
"""Resamples of the sentences of a trace."""
FAILED, SUCCESS = "failed", "success"


@dataclass(frozen=True)
class RunInfo:
    """What was run."""

    created_at: str
    total_time: float
    """Seconds of the run, with what it had to do before and after the fit."""
    experiment_name: str
    train_config: dict[str, Any]
    peft_config: dict[str, Any] | None = None
    error_msg: str = ""


@dataclass(frozen=True)
class TrainInfo:
    """How the fit went."""

    status: str
    accelerator_memory_max: int = 0
    """Bytes: the largest resident (CPU) or allocated (GPU) memory of the process during the fit."""
    train_time: float = 0.0
    file_size: int = 0
    num_trainable_params: int = 0
    num_total_params: int = 0
    metrics: tuple[dict[str, float], ...] = ()
    """One row an epoch, with the scores on development data."""


@dataclass(frozen=True)
class MetaInfo:
    """What it ran on."""

    model_info: dict[str, str]
    dataset_info: dict[str, dict[str, Any]]
    package_info: dict[str, str | None]
    system_info: dict[str, str]


@dataclass(frozen=True)
class Row:
    """One run: an arm on a model, a training set, a number of its examples and a seed."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    schema: int
    key: str
    """By which it is found again (`benchmark.run_key`)."""
    model: str
    train: str
    size: int | str
    seed: int
    arm: str
    rate: float | None
    tuning: bool
    run_info: RunInfo
    train_info: TrainInfo
    meta_info: MetaInfo | None = None
    trained_on: str = ""
    """Name of the data that the option `train` stands for; its own test set has the same one."""
    method: MethodRecord | None = None
    """Scores by test set, costs, damage and plan; None of a run that failed."""
    trace: TraceSummary | None = None
    adaptation: Adaptation | None = None
    answers: dict[str, str] = field(default_factory=dict)
    """By test set, the hash of the examples that `answers` of this row are of."""
    effects: str | None = None
    """The hash of the averaged trace."""

    @property
    def failed(self) -> bool:
        return self.train_info.status == FAILED

    @property
    def job(self) -> Job:
        return Job(self.model, self.train, self.size, self.seed, self.arm, self.rate, self.tuning)

    @property
    def stem(self) -> str:
        """The name of the file of its answers."""
        return f"{self.model}-{self.job.name}-seed{self.seed}"


@dataclass(frozen=True)
class Examples:
    """The examples of a test set, without their words."""

    labels: tuple[str, ...]
    gold: np.ndarray
    """Numbers of labels."""
    sentence: np.ndarray
    """A number for each sentence, from 0 in order of appearance."""


@dataclass(frozen=True)
class Answers:
    """What one run answered on a test set, in the order of its examples."""

    predicted: np.ndarray
    log_loss: np.ndarray
    """-log p(gold), natural logarithm, kept with three digits."""


class Results:
    """The rows of a benchmark in `<folder>/<name>.json`, and answers and examples in `<folder>/<name>/`."""

    def __init__(self, folder: Path, name: str) -> None:
        self.path = folder / f"{name}.json"
        self.folder = folder / name
        self.rows: dict[str, Row] = {}
        if self.path.exists():
            kept = load(_File, self.path)
            if kept.schema != SCHEMA:
                raise RecordError(f"{self.path} has schema {kept.schema}: expected {SCHEMA}; run the benchmark again")
            self.rows = {row.key: row for row in kept.rows}

    def add(self, row: Row, folder: Path | None = None) -> None:
        """Keep a row and, of a run in `folder` that was scored, its answers and its averaged trace."""
        if folder is not None and row.method is not None and not row.tuning:
            row = self._with_effects(row, folder)
            name = row.run_info.experiment_name
            row = self._with_answers(row, load_predictions(folder / "methods" / name / "predictions.jsonl"))
        self.rows[row.key] = row

    def save(self) -> None:
        """Write the rows, in an order that does not depend on when they were made."""
        rows = sorted(self.rows.values(), key=lambda row: (row.stem, row.key))
        write_json(_File(SCHEMA, tuple(rows)), self.path)

    def answers(self, row: Row, test: str) -> Answers:
        """The answers of a row on one test set."""
        tensors = load_file(self.folder / f"{row.stem}.safetensors")
        return Answers(tensors[f"{test}/predicted"].astype(np.int64), tensors[f"{test}/log_loss"].astype(np.float64))

    def examples(self, digest: str) -> Examples:
        """The examples of the test set with this hash."""
        kept = load(_KeptExamples, self.folder / f"test-{digest}.json")
        return Examples(kept.labels, np.array(kept.gold), np.array(kept.sentence))

    def effects(self, digest: str) -> Effects:
        """The averaged trace with this hash."""
        kept = load(_KeptEffects, self.folder / f"trace-{digest}.json")
        aie, low, high = (np.array(values, dtype=float) for values in (kept.aie, kept.low, kept.high))
        return Effects(kept.parts, kept.roles, aie, low, high, np.array(kept.n), kept.total)

    def _with_effects(self, row: Row, folder: Path) -> Row:
        trace = load_trace(folder / "trace") if row.trace else None
        if trace is None:
            return row
        effects = trace_effects(trace, draws=DRAWS, rng=np.random.default_rng(row.seed)).parts
        aie, low, high = (_rounded(values) for values in (effects.aie, effects.low, effects.high))
        kept = _KeptEffects(
            effects.parts, effects.roles, aie, low, high, tuple(map(int, effects.n)), effects.total
        )  # fmt: skip
        digest = content_hash(kept)
        write_json(kept, self.folder / f"trace-{digest}.json")
        return replace(row, effects=digest)

    def _with_answers(self, row: Row, predictions: Sequence[Prediction]) -> Row:
        assert row.method is not None
        tensors, digests = {}, {}
        for test in row.method.scores:
            rows = [p for p in predictions if p.test == test]
            labels = tuple(rows[0].probabilities)
            examples = _KeptExamples(
                labels,
                tuple(map(int, label_numbers([p.gold for p in rows], labels))),
                tuple(map(int, sentence_groups([p.sentence_id for p in rows]))),
            )
            digests[test] = content_hash([p.id for p in rows], examples)
            if not (path := self.folder / f"test-{digests[test]}.json").exists():
                write_json(examples, path)
            gold = np.array([p.probabilities[p.gold] for p in rows])
            tensors[f"{test}/predicted"] = label_numbers([p.predicted for p in rows], labels).astype(np.int8)
            tensors[f"{test}/log_loss"] = -np.log(np.maximum(gold, 1e-7)).astype(np.float16)
        with atomic(self.folder / f"{row.stem}.safetensors") as temporary:
            save_file(tensors, temporary)
        return replace(row, answers=digests)


Cells = tuple[tuple[tuple[float | None, ...], ...], ...]
"""Of an averaged trace by part, role and layer; None for a role that no example has."""


@dataclass(frozen=True)
class _KeptEffects:
    """The content of `trace-<hash>.json`."""

    parts: tuple[Part, ...]
    roles: tuple[Role, ...]
    aie: Cells
    low: Cells
    high: Cells
    n: tuple[int, ...]
    total: Interval


def _rounded(values: Float[np.ndarray, "part role layer"]) -> Cells:
    return tuple(
        tuple(tuple(None if np.isnan(v) else round(float(v), 5) for v in role) for role in part) for part in values
    )


@dataclass(frozen=True)
class _File:
    """The content of `<name>.json`."""

    schema: int
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class _KeptExamples:
    """The content of `test-<hash>.json`."""

    labels: tuple[str, ...]
    gold: tuple[int, ...]
    sentence: tuple[int, ...]


def row_of(job: Job, key: str, folder: Path, created_at: str) -> Row:
    """The row of a finished run in `folder`."""
    record = load(RunRecord, folder / "results.json")
    ((name, method),) = record.methods.items()
    fit = method.fit
    config = {
        "model_id": record.model.source,
        "dtype": record.model.dtype,
        "seed": job.seed,
        "batch_size": fit.batch_size if fit else None,
        "max_steps": fit.steps if fit else 0,
        "epochs": fit.epochs if fit else 0,
        "autocast": fit.precision if fit else None,
        "optimizer_kwargs": {"lr": method.lr},
    }
    return Row(
        SCHEMA,
        key,
        job.model,
        job.train,
        job.size,
        job.seed,
        job.arm,
        job.rate,
        job.tuning,
        RunInfo(created_at, sum(record.seconds.values()), name, config),
        TrainInfo(
            SUCCESS,
            fit.peak_bytes if fit else 0,
            fit.seconds if fit else 0.0,
            method.bytes_on_disk,
            method.trainable,
            record.model.parameters,
            fit.history if fit else (),
        ),
        MetaInfo(
            {"sha": record.model.sha256, "weights": record.model.weights},
            {key: {"n": data.n, "sha256": data.sha256} for key, data in record.data.items()},
            {**record.versions, "git": record.git},
            machine(),
        ),
        record.data["train"].name,
        _untested(method) if job.tuning else method,
        record.trace,
        record.adaptation,
    )


def failed_row(job: Job, key: str, message: str, created_at: str) -> Row:
    """The row of a run that ended with an error."""
    info = RunInfo(created_at, 0.0, job.name, {"seed": job.seed}, error_msg=message)
    return Row(
        SCHEMA, key, job.model, job.train, job.size, job.seed, job.arm, job.rate, job.tuning, info, TrainInfo(FAILED)
    )  # fmt: skip


def development_log_loss(row: Row) -> float:
    """Of the epoch that was kept, on development data; infinite of a run that failed."""
    fit = row.method.fit if row.method else None
    if fit is None:
        return float("inf")
    kept = next(epoch for epoch in fit.history if epoch["epoch"] == fit.best_epoch)
    return kept["dev_log_loss"]


def chosen_rates(rows: Iterable[Row]) -> dict[tuple[str, str], float]:
    """By model and arm, the rate whose run has the lowest development log-loss; the smaller one of two alike."""
    best: dict[tuple[str, str], tuple[float, float]] = {}
    for row in rows:
        if row.tuning and row.rate is not None and not row.failed:
            this = development_log_loss(row), row.rate
            place = row.model, row.arm
            best[place] = min(best.get(place, this), this)
    return {place: rate for place, (_, rate) in best.items()}


def _untested(method: MethodRecord) -> MethodRecord:
    """The record without scores on test data, which rates are not to be chosen by."""
    return replace(method, scores={}, leak_free={})
