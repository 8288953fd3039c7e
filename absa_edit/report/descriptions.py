"""What was run, in sentences that `report.md` and `report.html` share; the conclusions are in `conclusions.py`."""

from __future__ import annotations

from absa_edit.records import EditPlan, TraceCounts
from absa_edit.report import formatting
from absa_edit.results import Adaptation, ExportRecord, ModelSummary, RunRecord, TraceAgain, TraceSummary
from absa_edit.tracing.settings import Engine

BRIEF = 0.05
"""Seconds below which a stage had nothing to do but find what was there."""


def model(of: ModelSummary) -> str:
    """Which model a run stood on."""
    made = f", {of.weights}" if of.weights else ""
    return (
        f"Model **{of.name}**: {of.parameters:,} parameters, {of.layers} layers, {of.dtype}, "
        f"weights `{of.sha256[:12]}`{made}."
    )


def adaptation(of: Adaptation) -> str:
    """Which model was traced, and why."""
    why = ""
    if of.base_macro_f1 is not None and of.by_frequency is not None:
        above = "not surely above" if of.adapted else "above"
        why = (
            f": the base model's macro-F1 on {of.base_macro_f1.n:,} development rows, {of.base_macro_f1.percent()}, "
            f"is {above} the {100 * of.by_frequency:.1f} that label frequencies alone give"
        )
    if not of.adapted or of.fit is None:
        return f"The base model was traced{why}."
    return (
        f"The model was adapted before it was traced{why}. It learned by `{of.method}` from {of.examples:,} examples "
        f"({of.fit.epochs} epochs, {formatting.duration(of.fit.seconds)}) to a development macro-F1 of "
        f"{100 * of.fit.best_macro_f1:.1f}. The plan goes to the base model."
    )


def trace_again(of: TraceAgain) -> str:
    """Whether the place moved while the model was edited."""
    if of.agreement is None:
        return f"After `{of.method}` the model was traced again; too little is in both traces to compare them."
    return (
        f"After `{of.method}` the model was traced again: on the {of.n:,} examples that both traces kept, the rank "
        f"correlation of the effects is {of.agreement.rank_correlation.percent()} %, and of the {of.agreement.top} "
        f"strongest cells {of.agreement.overlap.percent()} % are the same."
    )


def trace(of: TraceSummary) -> str:
    """How many examples were traced, how many passed the filter, and how they were traced."""
    counts, how = of.counts, _estimated(of)
    if of.engine == Engine.exact and of.dtype != "float32":
        how = f" with products in {of.dtype} (an approximation)"
    return (
        f"{counts.seen:,} training examples looked at: {_filtered(counts)}, **{counts.kept:,} kept**. "
        f"Engine `{of.engine}`{how}, corruption `{of.corruption}` on `{of.corrupted_tokens}`, "
        f"{of.samples} samples, windows of {of.window} layers for attn and mlp, {formatting.duration(of.seconds)}."
        f"{_trust(of)}"
    )


def _estimated(of: TraceSummary) -> str:
    """What was run of the trace and what was not; nothing of an exact one."""
    if of.engine == Engine.exact:
        return ""
    ran = "" if of.cells_run is None else f" but for the {of.cells_run:,} cells that can decide a plan, which were run"
    products = "" if of.dtype == "float32" else f" with products in {of.dtype}"
    return f": effects are **estimated** from gradients{products}{ran}"


def _trust(of: TraceSummary) -> str:
    """How far the estimates agree with the exact engine."""
    if of.engine == Engine.exact:
        return ""
    if of.agreement is None:
        return " How far the estimates agree with the exact engine was not measured."
    agreement = of.agreement
    return (
        f" Against the exact engine on {agreement.rank_correlation.n:,} examples: rank correlation in percent "
        f"{agreement.rank_correlation.percent()}, of the {agreement.top} strongest cells "
        f"{agreement.overlap.percent()} the same."
    )


def _filtered(of: TraceCounts) -> str:
    wrong, right = f"the clean run answers {of.clean_wrong:,} wrong", f"the corrupted run {of.corrupted_right:,} right"
    if of.unfiltered:
        return f"none left out for their answers, though {wrong} and {right}"
    return (
        f"{of.clean_wrong:,} left out because the clean run answers wrong, {of.corrupted_right:,} because the "
        "corrupted run answers right"
    )


def plan(of: EditPlan, model: ModelSummary) -> str:
    """Where a plan edits, with what budget, and how stable that is."""
    layers, ranks = of.layers(), sorted({t.rank for t in of.targets})
    heads = sorted(t.site for t in of.targets if t.site.index is not None)
    parts = " and ".join(sorted({t.site.part.value for t in of.targets}))
    depth = max(model.layers - 1, 1)
    where = f"layers {formatting.runs(layers)} of {model.layers} (from 0)" if layers else "nowhere"
    span = f", {100 * layers[0] / depth:.0f}-{100 * layers[-1] / depth:.0f} % of the depth" if layers else ""
    stable = "" if of.stability is None else (
        f" Stability {of.stability:.2f}: mean Jaccard overlap of the targets over resamples of the sentences."
    )  # fmt: skip
    named = f" Heads (number@layer): {', '.join(f'{site.index}@{site.layer}' for site in heads)}." if heads else ""
    return (
        f"Source `{of.source}`: {len(of.targets)} targets, {parts} of {where}{span}, rank "
        f"{', '.join(map(str, ranks))}, {of.parameters:,} parameters.{named}{stable}"
    )


def export(of: ExportRecord) -> str:
    """How exactly the exported checkpoint answers like the model in memory."""
    return (
        f"`{of.method}`, loaded back and asked all {of.n:,} test questions again: "
        f"{100 * of.agreement:.4g} % the same labels, largest gap of a label's log-probability "
        f"{of.max_logit_gap:.1e}.{f' There is no merged checkpoint: {of.not_merged}.' if of.not_merged else ''}"
    )


def making(of: RunRecord) -> tuple[str, ...]:
    """Settings, times and versions that a run was made with, a sentence each."""
    times = ", ".join(f"{stage} {formatting.duration(s)}" for stage, s in of.seconds.items() if s >= BRIEF)
    precisions = " and ".join(sorted({m.fit.precision for m in of.methods.values() if m.fit and m.fit.precision}))
    versions = ", ".join(f"{name} {version}" for name, version in of.versions.items())
    sentences = (
        f"Settings `{of.config_hash}`, commit `{of.git or 'none'}`, seed {of.seed}.",
        f"Trained with matrix products in {precisions}." if precisions else "",
        f"Time of each stage in this run, those of earlier runs left out: {times}." if times else "",
        f"Versions: {versions}.",
    )
    return tuple(sentence for sentence in sentences if sentence)
