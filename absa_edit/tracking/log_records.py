"""What of each record a tracker is given: curves, summary figures with intervals, tables, adapters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from absa_edit.records import Trace
from absa_edit.report.conclusions import findings
from absa_edit.report.lookup import columns, score_rows
from absa_edit.results import AnalysisRecord, ExportRecord, Interval, MethodRecord, Prediction, RunRecord
from absa_edit.storage import to_json
from absa_edit.tracing.effects import Effects
from absa_edit.tracking.wandb import Tracker, Value

MOST_PREDICTIONS = 5000
"""Rows of a predictions table; the browser chokes on more, and `predictions.jsonl` has them all."""


def publish_epoch(tracker: Tracker, row: Mapping[str, int | float]) -> None:
    """Log one row of a fit's history: `dev_*` as `dev/*`, the rest as `fit/*`, at the epoch's number."""
    named = {
        f"dev/{key.removeprefix('dev_')}" if key.startswith("dev_") else f"fit/{key}": value
        for key, value in row.items()
    }
    tracker.log(named, step=int(row["epoch"]))


def publish_trace(tracker: Tracker, effects: Effects, trace: Trace, figure: Path | None = None) -> None:
    """Hand over the averaged trace as a table, its counts and total effect, and its heat map."""
    rows: list[list[Value]] = []
    for i, part in enumerate(effects.parts):
        for j, role in enumerate(effects.roles):
            for layer in range(effects.aie.shape[-1]):
                cell = [_number(values[i, j, layer]) for values in (effects.aie, effects.low, effects.high)]
                rows.append([part.value, role.value, layer, *cell, int(effects.n[j])])
    names = ["part", "role", "layer", "indirect_effect", "low", "high", "n"]
    tracker.table("trace/effects", names, rows)
    counts = {f"trace/examples_{key}": value for key, value in to_json(trace.counts).items()}
    about = {
        "trace/engine": trace.engine,
        "trace/corruption": trace.corruption,
        "trace/seconds": trace.seconds,
    }
    tracker.summary(_flat("trace/total_effect", effects.total) | counts | about)
    if figure is not None:
        tracker.image("trace/heatmap", figure)


def publish_method(tracker: Tracker, name: str, record: MethodRecord, predictions: Sequence[Prediction]) -> None:
    """Hand over a method's scores with intervals, its confusions, cost and damage, and its predictions."""
    summary: dict[str, Value] = {"method": name, "kind": record.kind}
    for test, score in record.scores.items():
        summary |= _flat(f"test/{test}/accuracy", score.accuracy)
        summary |= _flat(f"test/{test}/macro_f1", score.macro_f1)
        summary |= _flat(f"test/{test}/log_loss", score.log_loss) if score.log_loss else {}
        summary |= {f"test/{test}/f1_{label}": value for label, value in score.f1.items()}
    for test, score in record.leak_free.items():
        summary |= _flat(f"test/{test}/leak_free/accuracy", score.accuracy)
        summary |= _flat(f"test/{test}/leak_free/macro_f1", score.macro_f1)
        summary |= _flat(f"test/{test}/leak_free/log_loss", score.log_loss) if score.log_loss else {}
    for test, drawn in record.sampled.items():
        summary |= _flat(f"test/{test}/sampled/accuracy", drawn.accuracy)
        summary |= {f"test/{test}/sampled/no_label": drawn.no_label}
    for kind, by_test in (("", record.reliability), ("with_temperature/", record.with_temperature)):
        for test, of in by_test.items():
            for figure in ("brier", "ece", "aurc", *(["log_loss"] if kind else [])):
                summary |= _flat(f"test/{test}/{kind}{figure}", getattr(of, figure))
    if record.temperature is not None:
        summary |= {"dev/temperature": record.temperature.value}
    summary |= {"cost/trainable": record.trainable, "cost/share": record.share}
    summary |= {"cost/score_seconds": record.score_seconds, "cost/touched_share": record.touched_share}
    if record.fit is not None:
        summary |= {"cost/fit_seconds": record.fit.seconds, "cost/peak_bytes": record.fit.peak_bytes}
        summary |= {"cost/steps": record.fit.steps, "dev/best_macro_f1": record.fit.best_macro_f1}
        summary |= {"dev/best_epoch": record.fit.best_epoch, "cost/flops": record.fit.flops}
        summary |= {"cost/bytes_on_disk": record.bytes_on_disk}
    summary |= {"damage/perplexity": record.perplexity, "damage/frozen_checked": record.frozen_checked}
    if (kept := record.retention) is not None:
        summary |= _flat("damage/perplexity", kept.perplexity) if kept.perplexity else {}
        summary |= {"damage/neutral_words": kept.words}
        for test, loss in kept.elsewhere.items():
            summary |= _flat(f"retention/{test}/log_loss", loss)
        for general, score in kept.sentiment.items():
            summary |= _flat(f"retention/{general}/accuracy", score.accuracy)
            summary |= _flat(f"retention/{general}/log_loss", score.log_loss) if score.log_loss else {}
    summary |= {"predictions/left_out": max(0, len(predictions) - MOST_PREDICTIONS)}
    tracker.summary(summary)
    labels = list(predictions[0].probabilities) if predictions else []
    names = ["id", "test", "text", "aspect", "gold", "predicted", "correct", *(f"p_{x}" for x in labels)]
    rows: list[list[Value]] = [
        [p.id, p.test, p.text, p.aspect, p.gold, p.predicted, p.gold == p.predicted, *p.probabilities.values()]
        for p in predictions[:MOST_PREDICTIONS]
    ]
    tracker.table("predictions", names, rows)
    for test, score in record.scores.items():
        counts: list[list[Value]] = [[gold, *row] for gold, row in zip(score.f1, score.confusion, strict=True)]
        tracker.table(f"confusion/{test}", ["gold", *(f"predicted_{x}" for x in score.f1)], counts)


def publish_comparison(tracker: Tracker, record: RunRecord, figures: Sequence[Path] = ()) -> None:
    """Hand over the finished table with intervals, the paired comparisons, the conclusions and figures."""
    tracker.table("compare/scores", *columns(row.flat() for row in score_rows(record)))
    tracker.table("compare/paired", *columns(to_json(c) for c in record.comparisons))
    pooled = ({**to_json(p), "tests": ", ".join(p.tests)} for p in record.pooled)
    tracker.table("compare/pooled", *columns(pooled))
    tracker.table("compare/findings", ["finding"], [[sentence] for sentence in findings(record)])
    summary: dict[str, Value] = {"seed": record.seed, "config_hash": record.config_hash}
    for c in record.comparisons:
        key = f"compare/{c.a}-{c.b}/{c.test}/{c.metric}"
        summary |= {key: c.difference, f"{key}_low": c.low, f"{key}_high": c.high, f"{key}_n": c.n}
        summary |= {f"{key}_p": c.p, f"{key}_p_corrected": c.p_corrected}
    for p in record.pooled:
        key = f"compare/{p.a}-{p.b}/{p.question}/{p.metric}"
        summary |= {key: p.difference, f"{key}_low": p.low, f"{key}_high": p.high, f"{key}_n": p.n}
        summary |= {f"{key}_p": p.p, f"{key}_p_corrected": p.p_corrected}
    tracker.summary(summary)
    for path in figures:
        tracker.image(f"figures/{path.stem}", path)


def publish_analysis(tracker: Tracker, name: str, analysis: AnalysisRecord, figure: Path | None = None) -> None:
    """Hand over what an analysis found: the plain numbers of its record, its sentence, table and chart."""
    numbers = {key: value for key, value in analysis.record.items() if isinstance(value, int | float)}
    summary = {f"analysis/{name}/{key}": value for key, value in numbers.items()}
    tracker.summary({**summary, f"analysis/{name}/finding": analysis.section.sentence})
    if (table := analysis.section.table) is not None:
        tracker.table(f"analysis/{name}", table.heads, table.rows)
    if figure is not None:
        tracker.image(f"figures/{figure.stem}", figure)


def publish_export(tracker: Tracker, name: str, record: ExportRecord, folder: Path) -> None:
    """Hand over the adapter and its parity figures; never the merged checkpoint, which may be huge.

    `folder` is the run folder that the record's paths are relative to.
    """
    gap = {"export/max_logit_gap": record.max_logit_gap, "export/agreement": record.agreement}
    tracker.summary({**gap, "export/n": record.n})
    if record.adapter is not None:
        tracker.artifact(name, "adapter", folder / record.adapter)


def _flat(key: str, interval: Interval) -> dict[str, Value]:
    bounds = {f"{key}_low": interval.low, f"{key}_high": interval.high, f"{key}_n": interval.n}
    return {key: interval.value, **bounds}


def _number(value: np.floating) -> float | None:
    return None if np.isnan(value) else float(value)
