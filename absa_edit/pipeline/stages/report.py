"""The figures and reports of a ctx."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from absa_edit.context import Context
from absa_edit.export.model_card import add_figures
from absa_edit.pipeline.stages.methods import Rows, tracker_for
from absa_edit.records import TokenGrid, Trace
from absa_edit.report.html import report_html
from absa_edit.report.markdown import report_markdown
from absa_edit.report.plots.scores import write_figures
from absa_edit.report.plots.token_heatmap import token_heatmap
from absa_edit.results import RunRecord
from absa_edit.storage import atomic
from absa_edit.tracing.effects import TraceEffects
from absa_edit.tracking.log_records import publish_analysis, publish_comparison, publish_trace

BESIDE = {"base": "The trace of the base model", "edited": "The trace of the edited model"}


def report_stage(
    ctx: Context,
    record: RunRecord,
    trace: Trace | None,
    effects: TraceEffects | None,
    grids: Sequence[TokenGrid],
    rows: dict[str, Rows],
    command: str | None,
    beside: Mapping[str, TraceEffects],
) -> None:
    """Write figures and reports, and publish what spans methods; `beside` are traces of the base and edited model."""
    parts, heads = (effects.parts, effects.heads) if effects else (None, None)
    figures = ctx.folder / "figures"
    names = write_figures(record, parts, figures, {name: other.parts for name, other in beside.items()})
    for number, grid in enumerate(grids, 1):
        token_heatmap(grid, figures / f"trace_tokens_{number}.png", model=record.model.name)
    for exported in (record.export.adapter, record.export.merged) if record.export else ():
        if exported:
            add_figures(ctx.folder / exported, [figures / name for name in names])
    texts = {
        "report.md": report_markdown(record, figures=names, command=command),
        "report.html": report_html(
            record,
            effects=parts,
            heads=heads,
            trace=trace,
            grids=grids,
            train=ctx.splits.train,
            tests=ctx.splits.tests,
            predictions=rows,
            command=command,
            beside={BESIDE[name]: (figures / f"trace_{name}.png").read_bytes() for name in beside},
        ),
    }
    for name, text in texts.items():
        with atomic(ctx.folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    if trace and parts:
        with tracker_for(ctx, "trace", job_type="trace") as tracker:
            publish_trace(tracker, parts, trace, figures / "trace.png")
    for name, analysis in record.analyses.items():
        with tracker_for(ctx, name, job_type="analysis") as tracker:
            chart = figures / f"analysis_{name}.png"
            publish_analysis(tracker, name, analysis, chart if analysis.section.chart else None)
    if record.methods:
        shared = [figures / name for name in names if not name.startswith("analysis_")]
        with tracker_for(ctx, "compare", job_type="compare") as tracker:
            publish_comparison(tracker, record, shared)
