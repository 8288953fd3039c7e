"""What reports look up in a record: which method it is about, the order of methods and test sets, scores."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from absa_edit import resampling
from absa_edit.data.public_sets import PUBLIC, sample_domain
from absa_edit.records import DataSummary
from absa_edit.results import Comparison, Interval, MethodRecord, Pooled, RunRecord
from absa_edit.tasks.base import TASKS

Metric = Literal["accuracy", "macro_f1", "log_loss"]
METRICS: dict[Metric, str] = {"accuracy": "accuracy", "macro_f1": "macro-F1", "log_loss": "log-loss"}
"""Names of the metrics, in the order of the tables, with how they are written."""
BEST = {name: min if metric.lower_is_better else max for name, metric in resampling.METRICS.items()}
"""What picks the best figure of a metric."""

OUT_OF_DOMAIN = "out of domain"
RANDOM = ("random", "random_window")
"""Sources of the plans that are drawn at random."""
LEVEL = 0.05
"""Corrected p-value below which a difference is called one."""

Value = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Row:
    """One method on one test set, with what the method cost."""

    method: str
    kind: str
    test: str
    is_own_test: bool
    """Whether the test set belongs to the training set."""
    accuracy: Interval
    macro_f1: Interval
    log_loss: Interval | None
    """In nats; None in records from before it was kept."""
    trainable: int
    share: float
    seconds: float | None
    """Of the fit; None where nothing was trained."""
    peak_mb: float | None
    perplexity: float | None

    def flat(self) -> dict[str, Value]:
        """The row as scalars: each interval as its value, `_low` and `_high`, and `n` once."""
        plain: dict[str, Value] = {"method": self.method, "kind": self.kind}
        plain |= {"test": self.test, "own": self.is_own_test, "n": self.macro_f1.n}
        for metric in METRICS:
            interval: Interval | None = getattr(self, metric)
            ends = (interval.value, interval.low, interval.high) if interval else (None, None, None)
            plain |= dict(zip((metric, f"{metric}_low", f"{metric}_high"), ends, strict=True))
        plain |= {"trainable": self.trainable, "share": self.share}
        return plain | {"seconds": self.seconds, "peak_mb": self.peak_mb, "perplexity": self.perplexity}


@dataclass(frozen=True, slots=True)
class Majority:
    """What answering with the commonest gold label always would score on a test set."""

    label: str
    accuracy: float
    macro_f1: float
    log_loss: float
    """Of answering with the gold labels' frequencies always: their entropy in nats."""


@dataclass(frozen=True, slots=True)
class ScoreColumn:
    """One metric of every method on one test set."""

    test: str
    metric: Metric
    standing: str
    """Whether it is the training set's own, or out of its domain."""
    n: int
    scores: dict[str, Interval]
    """By method; those that were not scored on the set are left out."""
    best: tuple[str, ...]
    """The methods with the best score; several when they tie."""
    majority: tuple[str, float] | None
    """The commonest gold label and what answering with it always would score, of log-loss what the labels' frequencies
    would; None when the set is not described."""


def trains_nothing(method: MethodRecord) -> bool:
    """Whether a method is the model as it was."""
    return method.fit is None and not method.trainable


def baseline(record: RunRecord) -> str | None:
    """The untrained model among the methods; None in a run without."""
    return next((name for name, method in record.methods.items() if trains_nothing(method)), None)


def focus(record: RunRecord) -> str | None:
    """The method that the run is about: the one compared first, else the first trained, else the first."""
    compared_first = [c.a for c in record.comparisons[:1] if c.a in record.methods]
    trained = [name for name, method in record.methods.items() if not trains_nothing(method)]
    return next(iter((*compared_first, *trained, *record.methods)), None)


def random_control(record: RunRecord) -> str | None:
    """The method beside the focus whose places were drawn at random; None in a run without."""
    others = {name: method.plan for name, method in record.methods.items() if name != focus(record)}
    return next((name for name, plan in others.items() if plan and plan.source in RANDOM), None)


def whole_model(record: RunRecord) -> tuple[str, ...]:
    """The trained methods that are confined to no plan, but the focus."""
    return tuple(
        name
        for name, method in record.methods.items()
        if method.plan is None and not trains_nothing(method) and name != focus(record)
    )


def unit(record: RunRecord) -> str:
    """What one example of the run is about, in the plural."""
    if record.task not in TASKS:  # a plug-in of whoever made the run
        return "examples"
    return "aspects" if TASKS[record.task].asks_aspect else "sentences"


def methods_in_order(record: RunRecord) -> tuple[str, ...]:
    """Method names: the untrained model first, then as the run had them."""
    return tuple(sorted(record.methods, key=lambda name: not trains_nothing(record.methods[name])))


def tests_in_order(record: RunRecord) -> tuple[str, ...]:
    """Names of the scored test sets: the training set's own first, then as the run had them."""
    named = [key.removeprefix("test/") for key in record.data if key.startswith("test/")]
    scored = {test: None for method in record.methods.values() for test in method.scores}
    order = [test for test in named if test in scored] + [test for test in scored if test not in named]
    trained_on = record.data["train"].name if "train" in record.data else None
    return tuple(sorted(order, key=lambda test: test != trained_on))


def own_test(record: RunRecord) -> str | None:
    """The test set that goes with the training set; None when it was not scored."""
    name = record.data["train"].name if "train" in record.data else None
    return name if name in tests_in_order(record) else None


def standing(record: RunRecord, test: str) -> str:
    """How a test set stands to the training set: its own, of another domain, or (where that is unknown, too) other."""
    if test == own_test(record):
        return "own test"
    domains = {_domain(name) for name in (test, record.data["train"].name)} if "train" in record.data else {None}
    return OUT_OF_DOMAIN if len(domains) == 2 and None not in domains else "other set"


def questions(record: RunRecord) -> dict[str, tuple[str, ...]]:
    """The scored test sets by how they stand to the training set: what pooled comparisons are made over."""
    tests = tests_in_order(record)
    kinds = dict.fromkeys(standing(record, test) for test in tests)
    return {kind: tuple(test for test in tests if standing(record, test) == kind) for kind in kinds}


def _domain(name: str) -> str | None:
    return sample_domain(name) or (PUBLIC[name].domain if name in PUBLIC else None)


def score_rows(record: RunRecord) -> tuple[Row, ...]:
    """A row for each method and test set, methods outermost."""
    tests = tests_in_order(record)
    return tuple(
        _row(name, record.methods[name], test, test == own_test(record))
        for name in methods_in_order(record)
        for test in tests
        if test in record.methods[name].scores
    )


def _row(name: str, method: MethodRecord, test: str, is_own_test: bool) -> Row:
    score, fit = method.scores[test], method.fit
    return Row(
        name,
        method.kind,
        test,
        is_own_test,
        score.accuracy,
        score.macro_f1,
        score.log_loss,
        method.trainable,
        method.share,
        None if fit is None else fit.seconds,
        None if fit is None else fit.peak_bytes / 1e6,
        method.perplexity,
    )


def columns(rows: Iterable[dict[str, Value]]) -> tuple[list[str], list[list[Value]]]:
    """Column names and values of flat rows, as trackers take tables."""
    listed = list(rows)
    names = list(listed[0]) if listed else []
    return names, [[row[name] for name in names] for row in listed]


def majority(data: DataSummary) -> Majority | None:
    """The majority class of a test set; None for an empty one."""
    if not data.n:
        return None
    label = max(data.counts, key=data.counts.__getitem__)
    share = data.counts[label] / data.n
    shares = [count / data.n for count in data.counts.values() if count]
    # Precision is the share and recall 1; the labels never predicted have an F1 of 0.
    macro_f1 = 2 * share / (1 + share) / len(data.counts)
    return Majority(label, share, macro_f1, -sum(f * math.log(f) for f in shares))


def majority_of(record: RunRecord, test: str) -> Majority | None:
    """The majority class of the run's test set `test`; None when the run does not describe the set."""
    data = record.data.get(f"test/{test}")
    return None if data is None else majority(data)


def interval_of(record: RunRecord, method: str, test: str, metric: Metric) -> Interval | None:
    """One score with its interval; None where the method was not scored on the set, or not by the metric."""
    score = record.methods[method].scores.get(test)
    interval: Interval | None = getattr(score, metric) if score else None
    return interval


def metrics_of(record: RunRecord) -> tuple[Metric, ...]:
    """The metrics that the run was scored by: records from before log-loss was kept have none."""
    scores = [score for method in record.methods.values() for score in method.scores.values()]
    return tuple(metric for metric in METRICS if all(getattr(score, metric) for score in scores))


def score_columns(record: RunRecord, metric: Metric) -> tuple[ScoreColumn, ...]:
    """A column for each test set: what every table of scores is made of."""
    return tuple(_score_column(record, test, metric) for test in tests_in_order(record))


def _score_column(record: RunRecord, test: str, metric: Metric) -> ScoreColumn:
    methods = methods_in_order(record)
    scores = {name: score for name in methods if (score := interval_of(record, name, test, metric)) is not None}
    best = BEST[metric](score.value for score in scores.values())
    always = majority_of(record, test)
    return ScoreColumn(
        test,
        metric,
        standing(record, test),
        next(iter(scores.values())).n,
        scores,
        tuple(name for name, score in scores.items() if score.value == best),
        ("label frequencies" if metric == "log_loss" else always.label, getattr(always, metric)) if always else None,
    )


def compared(record: RunRecord, a: str, b: str, test: str, metric: Metric = "macro_f1") -> Comparison | None:
    """The paired comparison of `a` with `b`, turned round if the run has it as b - a."""
    for c in record.comparisons:
        if (c.test, c.metric) != (test, metric):
            continue
        if (c.a, c.b) == (a, b):
            return c
        if (c.a, c.b) == (b, a):
            return Comparison(a, b, test, metric, -c.difference, -c.high, -c.low, c.p, c.p_corrected, c.n)
    return None


def differs_significantly(comparison: Comparison | Pooled) -> bool:
    """Whether a paired difference stays significant after correction."""
    return comparison.p_corrected < LEVEL
