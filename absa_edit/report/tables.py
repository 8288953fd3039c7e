"""Every table of a run, made once as a `Table`: Markdown, page, terminal and model card show the same."""

from __future__ import annotations

from collections.abc import Mapping

from absa_edit.data.public_sets import sample_domain
from absa_edit.records import DataSummary
from absa_edit.report import formatting
from absa_edit.report.lookup import (
    METRICS,
    Metric,
    ScoreColumn,
    baseline,
    differs_significantly,
    methods_in_order,
    metrics_of,
    score_columns,
    trains_nothing,
)
from absa_edit.results import Comparison, MethodRecord, Pooled, RunRecord, Score, TraceSummary
from absa_edit.table import Table

SCORES = (
    "Percent, log-loss (of the gold label, lower is better) in nats, with 95 % intervals by bootstrap over sentences; "
    "the best of a column in bold."
)
"""What has to be known to read scores."""


def data_table(record: RunRecord) -> Table:
    """Each split with its source, counts and hashes."""
    heads = ("split", "set", "source", "n", *record.labels, "left out or noted", "SHA-256")
    return Table(heads, tuple(_data_row(key, data, record.labels) for key, data in record.data.items()))


def _data_row(key: str, data: DataSummary, labels: tuple[str, ...]) -> tuple[str, ...]:
    dropped = ", ".join(f"{reason} {n:,}" for reason, n in data.dropped.items()) or "nothing"
    digests = ", ".join(f"{name} `{digest[:12]}`" for name, digest in data.sha256.items())
    name = f"**{data.name}** (bundled)" if sample_domain(data.name) else data.name
    counts = (f"{data.counts[label]:,}" for label in labels)
    return (key.partition("/")[0], name, data.source, f"{data.n:,}", *counts, dropped, digests)


def score_table(record: RunRecord, *metrics: Metric, cost: bool = False) -> Table:
    """Methods as rows, test sets as columns; with several metrics a row each, with `cost` what was trained."""
    columns = [score_columns(record, metric) for metric in metrics]
    tests = (f"{c.test} ({c.standing}, n = {c.n:,})" for c in columns[0])
    rows: list[tuple[str, ...]] = []
    for name in (*methods_in_order(record), None):  # None: the majority class
        for line, (metric, scores) in enumerate(zip(metrics, columns, strict=True)):
            named = ("" if line else name or "majority class", *[METRICS[metric]] * (len(metrics) > 1))
            spent = _spent(record.methods[name] if name else None, line) if cost else ()
            rows.append((*named, *spent, *(_score_cell(column, name) for column in scores)))
    about = ("method", *[""] * (len(metrics) > 1), *(("trainable", "fit") if cost else ()))
    return Table((*about, *tests), tuple(rows), SCORES)


def _score_cell(column: ScoreColumn, method: str | None) -> str:
    if method is None:
        if column.majority is None:
            return "-"
        label, value = column.majority
        return f"{formatting.value(column.metric, value)} ({label})"
    score = column.scores.get(method)
    if score is None:
        return "-"
    text = formatting.score(column.metric, score)
    return f"**{text}**" if method in column.best else text


def _spent(method: MethodRecord | None, line: int) -> tuple[str, str]:
    """Trained parameters and time of the fit; on the next line the share of the weights."""
    trained, fit = (method.trainable, method.fit) if method else (0, None)
    if line > 1:
        return ("", "")
    if line:
        return (formatting.percent(method.share) if method and trained else "", "")
    return (f"{trained:,}", "-" if fit is None else formatting.duration(fit.seconds))


def method_table(scores: Mapping[str, Score]) -> Table:
    """The scores of one method, a row a test set."""
    heads = ("test set", "accuracy % [95 %]", "macro-F1 % [95 %]", "log-loss [95 %]", "n")
    rows = (
        (test, s.accuracy.percent(), s.macro_f1.percent(), s.log_loss.plain() if s.log_loss else "-", f"{s.accuracy.n}")
        for test, s in scores.items()
    )
    return Table(heads, tuple(rows), "Intervals by bootstrap over sentences.")


def leak_free_table(record: RunRecord) -> Table:
    """Scores without the test rows that are in the training file, beside those with them."""
    metrics = metrics_of(record)
    named = (head for metric in metrics for head in (METRICS[metric], "of all rows"))
    heads = ("method", "test set", "n", "leaked", *named)
    rows = []
    for name in methods_in_order(record):
        for test, clean in record.methods[name].leak_free.items():
            with_leaks = record.methods[name].scores[test]
            values = (
                text
                for m in metrics
                for text in (
                    formatting.score(m, getattr(clean, m)),
                    formatting.value(m, getattr(with_leaks, m).value),
                )
            )
            n = clean.accuracy.n
            rows.append((name, test, f"{n:,}", f"{with_leaks.accuracy.n - n:,}", *values))
    caption = "Of the same predictions, those on test rows whose sentence and aspect are not in the training file."
    return Table(heads, tuple(rows), caption)


def sampled_table(record: RunRecord) -> Table:
    """Accuracy of drawn answers beside that of the likeliest label word."""
    heads = ("method", "test set", "n", "accuracy, drawn", "likeliest label", "no label drawn")
    rows = (
        (
            name,
            test,
            f"{drawn.accuracy.n:,}",
            drawn.accuracy.percent(),
            f"{100 * record.methods[name].scores[test].accuracy.value:.1f}",
            formatting.percent(drawn.no_label / drawn.accuracy.n),
        )
        for name in methods_in_order(record)
        for test, drawn in record.methods[name].sampled.items()
    )
    caption = "Answers drawn token by token, one draw a question; one that is no label's word is wrong."
    return Table(heads, tuple(rows), caption)


def calibration_table(record: RunRecord) -> Table:
    """What the probabilities are worth, as they are and with the fitted temperature, and errors by coverage."""
    heads = (
        "method", "test set", "T", "log-loss", "with T", "ECE (%)", "with T", "Brier", "with T", "AURC (%)",
        "wrong of the surest 50 / 80 / 100 %",
    )  # fmt: skip
    rows = []
    for name in methods_in_order(record):
        method = record.methods[name]
        for test, plain in method.reliability.items():
            fitted = method.with_temperature.get(test)
            pairs = (
                (plain.log_loss.plain(), fitted and fitted.log_loss.plain()),
                (plain.ece.percent(), fitted and fitted.ece.percent()),
                (plain.brier.plain(), fitted and fitted.brier.plain()),
            )
            temperature = "-" if method.temperature is None else f"{method.temperature.value:.2f}"
            values = (text or "-" for pair in pairs for text in pair)
            risks = " / ".join(f"{100 * risk:.1f}" for risk in plain.risks)
            rows.append((name, test, temperature, *values, plain.aurc.percent(), risks))
    caption = (
        "T: the temperature that fits development data best. ECE: how far confidence and accuracy are apart, in 15 "
        "equally wide bins. AURC: share of wrong answers among the k surest, in the mean over k. 95 % intervals "
        "by bootstrap over sentences, which adds to a small ECE; of all figures lower is better."
    )
    return Table(heads, tuple(rows), caption)


def class_table(record: RunRecord) -> Table:
    """F1 of each class by method and test set."""
    heads = ("method", "test set", "n", *(f"F1 {label}" for label in record.labels))
    rows = (
        (name, test, f"{s.macro_f1.n:,}", *(f"{100 * s.f1[label]:.1f}" for label in record.labels))
        for name in methods_in_order(record)
        for test, s in record.methods[name].scores.items()
    )
    return Table(heads, tuple(rows))


def comparison_table(record: RunRecord) -> Table:
    """Each paired difference with its interval and p-values; those below the level in bold."""
    rows = ((c.a, c.b, c.test, *_difference(c), f"{c.n:,}") for c in record.comparisons)
    caption = (
        "In points, log-loss in nats (lower is better). Permutation over sentences; Benjamini-Hochberg over the "
        "comparisons in one metric on test sets of the same standing; below 0.05 in bold."
    )
    return Table(("a", "b", "test set", *DIFFERENCE, "n"), tuple(rows), caption)


def pooled_table(record: RunRecord) -> Table:
    """Each paired difference over all test sets of a question that has several."""
    rows = ((p.a, p.b, f"{p.question} ({', '.join(p.tests)})", *_difference(p), f"{p.n:,}") for p in record.pooled)
    caption = (
        "Mean of the differences on the test sets of one standing, each of which weighs the same, in points, log-loss "
        "in nats (lower is better). Permutation and bootstrap over the sentences of each set; Benjamini-Hochberg over "
        "the pairs in one metric and standing; below 0.05 in bold."
    )
    return Table(("a", "b", "test sets", *DIFFERENCE, "n"), tuple(rows), caption)


DIFFERENCE = ("metric", "a - b", "p", "p corrected")


def _difference(c: Comparison | Pooled) -> tuple[str, ...]:
    """The cells under `DIFFERENCE`."""
    return (
        METRICS.get(c.metric, c.metric),  # type: ignore[call-overload]
        f"{formatting.change(c.metric, c.difference)} {formatting.changes(c.metric, c.low, c.high)}",
        f"{c.p:.4f}",
        f"**{c.p_corrected:.4f}**" if differs_significantly(c) else f"{c.p_corrected:.4f}",
    )


def cost_table(record: RunRecord) -> Table:
    """What each method trained and took."""
    heads = (
        "method", "kind", "trainable", "share", "lr", "fit", "epochs (kept)", "batch (at once)",
        "peak memory", "TFLOP", "trained", "scoring",
    )  # fmt: skip
    caption = (
        "Of each method alone: the states of the base model that methods share when development and test data are "
        "scored are computed once and counted for none. Memory is the process's; on a CPU that is all it has held so "
        "far."
    )
    return Table(heads, tuple(_cost_row(name, record.methods[name]) for name in methods_in_order(record)), caption)


def _cost_row(name: str, method: MethodRecord) -> tuple[str, ...]:
    fit, fitted = method.fit, ["-"] * 6
    if fit is not None:
        fitted = [
            formatting.duration(fit.seconds),
            f"{fit.epochs} ({fit.best_epoch})",
            f"{fit.batch_size} ({fit.micro_batch})",
            formatting.megabytes(fit.peak_bytes),
            f"{fit.flops / 1e12:.1f}" if fit.flops else "-",
            f"{method.bytes_on_disk / 1e6:.2f} MB",
        ]
    rate = "-" if method.lr is None else f"{method.lr:g}"
    trained = (f"{method.trainable:,}", formatting.percent(method.share), rate)
    return (name, method.kind, *trained, *fitted, formatting.duration(method.score_seconds))


def damage_table(record: RunRecord) -> Table:
    """Perplexity on neutral text before and after each method, and what it was allowed to move."""
    untrained = baseline(record)
    before = record.methods[untrained].perplexity if untrained else None
    if record.before and record.before.perplexity:
        before = record.before.perplexity.value
    heads = ("method", "perplexity", "change", "weights it may touch", "rest found bit-identical")
    rows = tuple(_damage_row(name, record.methods[name], before) for name in methods_in_order(record))
    text = f"{record.before.words:,} words of neutral text" if record.before else "neutral text"
    model = f"`{untrained}` is the model before, each other row" if untrained else "each row is"
    if before is not None and not untrained:
        model = f"it was {formatting.perplexity(before)} before, each row is"
    caption = (
        f"Perplexity on {text}, with 95 % intervals by bootstrap over paragraphs: {model} the model after. A "
        "representation edit is left out of it: it acts at places of the prompt that neutral text does not have."
    )
    return Table(heads, rows, caption)


def _damage_row(name: str, method: MethodRecord, before: float | None) -> tuple[str, ...]:
    change = "-"
    if before is not None and method.perplexity is not None and not trains_nothing(method):
        change = f"{formatting.points(method.perplexity / before - 1)} %"
    checked = "yes" if method.frozen_checked else "no"
    if not method.trainable or method.share >= 1:
        checked = "-"
    perplexity = formatting.perplexity(method.perplexity)
    if method.retention and (interval := method.retention.perplexity):
        perplexity += f" [{interval.low:.2f}, {interval.high:.2f}]"
    return (name, perplexity, change, formatting.percent(method.touched_share), checked)


def retention_table(record: RunRecord) -> Table:
    """What the base model and the model after each method do besides the task."""
    after = {name: m.retention for name in methods_in_order(record) if not (m := record.methods[name]).is_base}
    models = {"the base model": record.before} | after
    kept = {name: of for name, of in models.items() if of is not None and (of.sentiment or of.elsewhere)}
    others = dict.fromkeys(test for of in kept.values() for test in of.elsewhere)
    sets = dict.fromkeys(name for of in kept.values() for name in of.sentiment)
    heads = (
        "model",
        *(f"log-loss on {test}" for test in others),
        *(f"{metric} on {name}" for name in sets for metric in ("accuracy", "log-loss")),
    )
    rows = tuple(
        (
            name,
            *(of.elsewhere[test].plain() if test in of.elsewhere else "-" for test in others),
            *(text for at in sets for text in _general(of.sentiment.get(at))),
        )
        for name, of in kept.items()
    )
    caption = (
        "Besides its task: log-loss on the other test sets, and how sentences of no domain are answered that are asked "
        "about in another form, in percent and nats with 95 % intervals by bootstrap over sentences. There, what the "
        "model answers to texts that say nothing is taken off, and a representation edit is left out."
    )
    return Table(heads, rows, caption)


def _general(score: Score | None) -> tuple[str, str]:
    if score is None or score.log_loss is None:
        return ("-", "-")
    return (score.accuracy.percent(), score.log_loss.plain())


def traces_table(record: RunRecord) -> Table | None:
    """The traces of one run beside each other; None where there is only one."""
    if record.trace is None or (record.base_trace is None and record.trace_again is None):
        return None
    adapted = record.adaptation is not None and record.adaptation.adapted
    traces = {"base": record.base_trace, "adapted" if adapted else "base (planned from)": record.trace}
    if record.trace_again:
        traces[f"after {record.trace_again.method}"] = record.trace_again.trace
    heads = ("model", "examples kept", "total effect (points)", "peak", "its effect (points)")
    rows = tuple(
        (
            name,
            f"{trace.counts.kept:,} of {trace.counts.seen:,}",
            trace.total_effect.percent(),
            f"{trace.peak.part.value}, layer {trace.peak.layer}, {formatting.ROLES[trace.peak.role]}",
            trace.peak.effect.percent(),
        )
        for name, trace in traces.items()
        if trace
    )
    return Table(heads, rows, "Traces of the same prompts:")


def depth_table(trace: TraceSummary) -> Table:
    """Where along the depth the effect of each part sits."""
    heads = ("part", "peak (%)", "centre of mass (%)", "share in the middle third (%)")
    rows = (
        (part, d.peak_layer.percent(), d.centre_of_mass.percent(), d.middle_third_share.percent())
        for part, d in trace.depth.items()
    )
    return Table(heads, tuple(rows), "Where along the depth (0 is the first layer, 100 the last):")
