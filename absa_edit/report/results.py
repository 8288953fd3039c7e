"""The tables of a run as text, and the sections of `report.md` made of them."""

from __future__ import annotations

from collections.abc import Sequence

from absa_edit.data.public_sets import sample_domain
from absa_edit.records import DataSummary
from absa_edit.report import formatting
from absa_edit.report.conclusions import caveats, control, main_test, told_apart
from absa_edit.report.tables import (
    METRICS,
    Metric,
    best,
    interval_of,
    majority_of,
    methods_in_order,
    standing,
    tests_in_order,
)
from absa_edit.results import RunRecord
from absa_edit.table import pipe_table

Table = tuple[Sequence[str], list[list[str]]]
"""Heads and rows; cells may hold `code` and **bold**."""

COMPARED = "Permutation over sentences, Benjamini-Hochberg over all comparisons of the run; below 0.05 in bold."
DAMAGED = (
    "Perplexity on neutral text: `zero_shot` is the model before, each other row the model after. A representation "
    "edit is left out of it: it acts at the aspect, and neutral text has none."
)
COST = (
    "Of each method alone: the states of the base model that methods share when development and test data are scored "
    "are computed once and counted for none. Memory is the process's; on a CPU that is all it has held so far."
)
CAPTIONS = {
    "trace.png": "Average indirect effect by part, layer and role",
    "scores.png": "Macro-F1 by method and test set",
    "pareto.png": "Macro-F1 against trainable parameters",
    "learning.png": "Development macro-F1 by epoch",
}


def data_table(record: RunRecord) -> Table:
    """Each split with its source, counts and hashes."""
    heads = ("split", "set", "source", "n", *labels_of(record), "left out or noted", "SHA-256")
    return heads, [_data_row(key, data) for key, data in record.data.items()]


def _data_row(key: str, data: DataSummary) -> list[str]:
    dropped = ", ".join(f"{reason} {n:,}" for reason, n in data.dropped.items()) or "nothing"
    digests = ", ".join(f"{name} `{digest[:12]}`" for name, digest in data.sha256.items())
    name = f"**{data.name}** (bundled)" if sample_domain(data.name) else data.name
    per_class = [f"{n:,}" for n in data.counts.values()]
    return [key.partition("/")[0], name, data.source, f"{data.n:,}", *per_class, dropped, digests]


def scores_section(record: RunRecord, figures: Sequence[str]) -> list[str]:
    """Section with every score, its interval and n."""
    if not tests_in_order(record):
        return []
    lines = [
        "## Scores",
        "",
        "Percent with 95 % intervals by bootstrap over sentences; the best of a column in bold.",
    ]
    for metric, name in METRICS.items():
        lines += ["", f"**{name}**", "", *_score_table(record, metric)]
    lines += figure("scores.png", figures)
    return [
        *lines,
        "",
        "<details><summary>F1 of each class</summary>",
        "",
        *pipe_table(*class_table(record)),
        "",
        "</details>",
    ]


def labels_of(record: RunRecord) -> tuple[str, ...]:
    """The labels of a run's task, in order."""
    return tuple(next(iter(record.data.values())).counts) if record.data else ()


def class_table(record: RunRecord) -> Table:
    """F1 of each class by method and test set."""
    heads = ("method", "test set", "n", *(f"F1 {label}" for label in labels_of(record)))
    return heads, [
        [name, test, f"{s.macro_f1.n:,}", *(f"{100 * f1:.1f}" for f1 in s.f1.values())]
        for name in methods_in_order(record)
        for test, s in record.methods[name].scores.items()
    ]


def _score_table(record: RunRecord, metric: Metric) -> list[str]:
    tests = tests_in_order(record)
    heads = ["method"]
    for test in tests:
        n = next(i.n for m in record.methods if (i := interval_of(record, m, test, metric)) is not None)
        heads.append(f"{test} ({standing(record, test)}, n = {n:,})")
    rows = []
    for name in methods_in_order(record):
        cells = [name]
        for test in tests:
            score = interval_of(record, name, test, metric)
            text = "-" if score is None else score.percent()
            cells.append(f"**{text}**" if name in best(record, test, metric) else text)
        rows.append(cells)
    always = ["majority class"]
    for test in tests:
        known = majority_of(record, test)
        value = None if known is None else known.accuracy if metric == "accuracy" else known.macro_f1
        always.append("-" if known is None or value is None else f"{100 * value:.1f} ({known.label})")
    return pipe_table(heads, [*rows, always])


def comparisons_section(record: RunRecord) -> list[str]:
    """Section with the paired differences."""
    if not record.comparisons:
        return []
    return ["## Paired comparisons", "", COMPARED, "", *pipe_table(*comparison_table(record))]


def comparison_table(record: RunRecord) -> Table:
    """Each paired difference with its interval and p-values; those below the level in bold."""
    heads = ("a", "b", "test set", "metric", "a - b (points)", "p", "p corrected", "n")
    return heads, [
        [
            c.a,
            c.b,
            c.test,
            METRICS.get(c.metric, c.metric),  # type: ignore[call-overload]
            f"{formatting.points(c.difference)} {formatting.between(c.low, c.high)}",
            f"{c.p:.4f}",
            f"**{c.p_corrected:.4f}**" if told_apart(c) else f"{c.p_corrected:.4f}",
            f"{c.n:,}",
        ]
        for c in record.comparisons
    ]


def control_section(record: RunRecord) -> list[str]:
    """Section that says plainly whether the edit beats one in random places."""
    said = control(record, main_test(record))
    if said is None:
        return []
    return ["## Did tracing help?", "", said, *(line for sentence in caveats(record) for line in ("", sentence))]


def cost_section(record: RunRecord, figures: Sequence[str]) -> list[str]:
    """Section with what each method trained and took."""
    if not record.methods:
        return []
    return [
        "## Cost",
        "",
        COST,
        "",
        *pipe_table(*cost_table(record)),
        *figure("pareto.png", figures),
        *figure("learning.png", figures),
    ]


def cost_table(record: RunRecord) -> Table:
    """What each method trained and took."""
    heads = (
        "method", "kind", "trainable", "share", "lr", "fit", "epochs (kept)", "batch (at once)",
        "peak memory", "TFLOP", "trained", "scoring",
    )  # fmt: skip
    rows = []
    for name in methods_in_order(record):
        m = record.methods[name]
        cells = [
            name,
            m.kind,
            f"{m.trainable:,}",
            formatting.percent(m.share),
            "-" if m.lr is None else f"{m.lr:g}",
        ]
        if m.fit is None:
            cells += ["-"] * 6
        else:
            cells += [formatting.duration(m.fit.seconds), f"{m.fit.epochs} ({m.fit.best_epoch})"]
            cells += [f"{m.fit.batch_size} ({m.fit.micro_batch})", formatting.megabytes(m.fit.peak_bytes)]
            cells += [f"{m.fit.flops / 1e12:.1f}", f"{m.bytes_on_disk / 1e6:.2f} MB"]
        rows.append([*cells, formatting.duration(m.score_seconds)])
    return heads, rows


def damage_section(record: RunRecord) -> list[str]:
    """Section with perplexity on neutral text and what was allowed to move."""
    if not record.methods:
        return []
    return ["## Damage to the language model", "", DAMAGED, "", *pipe_table(*damage_table(record))]


def damage_table(record: RunRecord) -> Table:
    """Perplexity on neutral text before and after each method, and what it was allowed to move."""
    before = next((m.perplexity for m in record.methods.values() if m.kind == "zero_shot"), None)
    rows = []
    for name in methods_in_order(record):
        m = record.methods[name]
        change = "-"
        if before is not None and m.perplexity is not None and m.kind != "zero_shot":
            change = f"{formatting.points(m.perplexity / before - 1)} %"
        checked = "yes" if m.frozen_checked else "no"
        if not m.trainable or m.share >= 1:
            checked = "-"
        rows.append([name, formatting.perplexity(m.perplexity), change, formatting.percent(m.touched_share), checked])
    heads = ("method", "perplexity", "change", "weights it may touch", "rest found bit-identical")
    return heads, rows


def figure(name: str, figures: Sequence[str]) -> list[str]:
    """Markdown lines that show a figure; none when it was not written."""
    return ["", f"![{CAPTIONS[name]}](figures/{name})"] if name in figures else []
