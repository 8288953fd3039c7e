"""The scores of a run as plain rows, in the one order that every table and figure keeps."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from absa_edit.data.public_sets import PUBLIC, sample_domain
from absa_edit.records import DataSummary
from absa_edit.results import Comparison, Interval, MethodRecord, RunRecord

Metric = Literal["accuracy", "macro_f1"]
METRICS: dict[Metric, str] = {"accuracy": "accuracy", "macro_f1": "macro-F1"}
"""Names of the metrics, in the order of the tables, with how they are written."""

OUT_OF_DOMAIN = "out of domain"

Value = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Row:
    """One method on one test set, with what the method cost."""

    method: str
    kind: str
    test: str
    own: bool
    """Whether the test set belongs to the training set."""
    accuracy: Interval
    macro_f1: Interval
    trainable: int
    share: float
    seconds: float | None
    """Of the fit; None where nothing was trained."""
    peak_mb: float | None
    perplexity: float | None

    def flat(self) -> dict[str, Value]:
        """The row as scalars: each interval as its value, `_low` and `_high`, and `n` once."""
        plain: dict[str, Value] = {"method": self.method, "kind": self.kind}
        plain |= {"test": self.test, "own": self.own, "n": self.macro_f1.n}
        for metric in METRICS:
            interval: Interval = getattr(self, metric)
            plain |= {metric: interval.value, f"{metric}_low": interval.low, f"{metric}_high": interval.high}
        plain |= {"trainable": self.trainable, "share": self.share}
        return plain | {"seconds": self.seconds, "peak_mb": self.peak_mb, "perplexity": self.perplexity}


@dataclass(frozen=True, slots=True)
class Majority:
    """What answering with the commonest gold label always would score on a test set."""

    label: str
    accuracy: float
    macro_f1: float


def methods_in_order(record: RunRecord) -> tuple[str, ...]:
    """Method names: the untrained model first, then as the run had them."""
    return tuple(sorted(record.methods, key=lambda name: record.methods[name].kind != "zero_shot"))


def tests_in_order(record: RunRecord) -> tuple[str, ...]:
    """Names of the scored test sets: the training set's own first, then as the run had them."""
    named = [key.removeprefix("test/") for key in record.data if key.startswith("test/")]
    scored = {test: None for method in record.methods.values() for test in method.scores}
    order = [test for test in named if test in scored] + [test for test in scored if test not in named]
    own = record.data["train"].name if "train" in record.data else None
    return tuple(sorted(order, key=lambda test: test != own))


def own_test(record: RunRecord) -> str | None:
    """The test set that goes with the training set; None when it was not scored."""
    own = record.data["train"].name if "train" in record.data else None
    return own if own in tests_in_order(record) else None


def standing(record: RunRecord, test: str) -> str:
    """How a test set stands to the training set: its own, of another domain, or (where that is unknown, too) other."""
    if test == own_test(record):
        return "own test"
    domains = {_domain(name) for name in (test, record.data["train"].name)} if "train" in record.data else {None}
    return OUT_OF_DOMAIN if len(domains) == 2 and None not in domains else "other set"


def _domain(name: str) -> str | None:
    return sample_domain(name) or (PUBLIC[name].domain if name in PUBLIC else None)


def score_rows(record: RunRecord) -> tuple[Row, ...]:
    """A row for each method and test set, methods outermost."""
    own, tests = own_test(record), tests_in_order(record)
    return tuple(
        _row(name, record.methods[name], test, test == own)
        for name in methods_in_order(record)
        for test in tests
        if test in record.methods[name].scores
    )


def _row(name: str, method: MethodRecord, test: str, own: bool) -> Row:
    score, fit = method.scores[test], method.fit
    return Row(
        name,
        method.kind,
        test,
        own,
        score.accuracy,
        score.macro_f1,
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
    # Precision is the share and recall 1; the labels never predicted have an F1 of 0.
    return Majority(label, share, 2 * share / (1 + share) / len(data.counts))


def majority_of(record: RunRecord, test: str) -> Majority | None:
    """The majority class of the run's test set `test`; None when the run does not describe the set."""
    data = record.data.get(f"test/{test}")
    return None if data is None else majority(data)


def interval_of(record: RunRecord, method: str, test: str, metric: Metric) -> Interval | None:
    """One score with its interval; None where the method was not scored on the set."""
    score = record.methods[method].scores.get(test)
    if score is None:
        return None
    return score.accuracy if metric == "accuracy" else score.macro_f1


def best(record: RunRecord, test: str, metric: Metric) -> tuple[str, ...]:
    """The methods with the highest score of a column; several when they tie."""
    found = {m: interval_of(record, m, test, metric) for m in methods_in_order(record)}
    values = {method: interval.value for method, interval in found.items() if interval is not None}
    return tuple(m for m, value in values.items() if value == max(values.values()))


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
