"""`report.md`: what was run, what came out and how sure that is, readable in any viewer."""

from __future__ import annotations

from collections.abc import Sequence

from absa_edit.model.known import is_named
from absa_edit.report import descriptions, formatting
from absa_edit.report.conclusions import caveats, control, findings, main_test, warnings
from absa_edit.report.lookup import METRICS, metrics_of, tests_in_order
from absa_edit.report.tables import (
    calibration_table,
    class_table,
    comparison_table,
    cost_table,
    damage_table,
    data_table,
    depth_table,
    leak_free_table,
    pooled_table,
    retention_table,
    sampled_table,
    score_table,
    traces_table,
)
from absa_edit.results import AnalysisRecord, ModelSummary, RunRecord
from absa_edit.table import markdown, pipe_table


def report_markdown(record: RunRecord, *, figures: Sequence[str] = (), command: str | None = None) -> str:
    """The text of `report.md`.

    `figures` are names in `figures/` beside the report (what `write_figures` returns); `command` is the
    command line that made the run.
    """
    sections = (
        _headline(record),
        _data(record),
        _trace(record, figures),
        _plan(record),
        _scores(record, figures),
        _comparisons(record),
        _control(record),
        _cost(record, figures),
        _damage(record),
        *(_analysis(name, analysis, figures) for name, analysis in record.analyses.items()),
        _export(record),
        _reproduce(record, command),
    )
    return "\n\n".join("\n".join(lines) for lines in sections if lines) + "\n"


def _headline(record: RunRecord) -> list[str]:
    lines = [f"# {record.experiment}: {record.model.name}, seed {record.seed}", ""]
    for warning in warnings(record):
        lines += [f"> **{warning}**", ""]
    lines += [f"- {sentence}" for sentence in findings(record)]
    return lines


def _data(record: RunRecord) -> list[str]:
    return ["## What was run", "", descriptions.model(record.model), "", *markdown(data_table(record))]


def _trace(record: RunRecord, figures: Sequence[str]) -> list[str]:
    trace = record.trace
    if trace is None:
        return []
    peak = trace.peak
    lines = [
        "## Trace",
        "",
        *([descriptions.adaptation(record.adaptation), ""] if record.adaptation else []),
        descriptions.trace(trace),
        "",
        f"- Total effect of the corruption: {trace.total_effect.percent()} points of p(gold), "
        f"n = {trace.total_effect.n:,}.",
        f"- Peak: {peak.part.value}, layer {peak.layer} of {record.model.layers} (from 0), role "
        f"{peak.role.value}: {peak.effect.percent()} points, n = {peak.effect.n:,}.",
        "",
        *markdown(depth_table(trace)),
    ]
    lines += _figure("trace.png", "Average indirect effect by part, layer and role", figures)
    if record.trace_again:
        lines += ["", descriptions.trace_again(record.trace_again)]
    if (beside := traces_table(record)) is not None:
        lines += ["", *markdown(beside)]
    for name, of in (("base", "the base model"), ("edited", "the edited model")):
        lines += _figure(f"trace_{name}.png", f"The same, of {of}", figures)
    return lines


def _plan(record: RunRecord) -> list[str]:
    plan = record.plan
    if plan is None:
        return []
    return [
        "## Plan",
        "",
        descriptions.plan(plan, record.model),
        "",
        "```text",
        *formatting.plan_sketch(plan, record.model.layers),
        "```",
    ]


def _scores(record: RunRecord, figures: Sequence[str]) -> list[str]:
    if not tests_in_order(record):
        return []
    tables = {METRICS[metric]: score_table(record, metric) for metric in metrics_of(record)}
    lines = ["## Scores", "", next(iter(tables.values())).caption]
    for name, table in tables.items():
        lines += ["", f"**{name}**", "", *pipe_table(table.heads, table.rows)]
    besides = {"without leaked test rows": leak_free_table(record), "answers that are drawn": sampled_table(record)}
    for name, table in besides.items():
        if table.rows:
            lines += ["", f"**{name}**", "", *markdown(table)]
    return [
        *lines,
        *_calibration(record),
        *_figure("scores.png", "Macro-F1 by method and test set", figures),
        "",
        "<details><summary>F1 of each class</summary>",
        "",
        *markdown(class_table(record)),
        "",
        "</details>",
    ]


def _calibration(record: RunRecord) -> list[str]:
    table = calibration_table(record)
    if not table.rows:
        return []
    return ["", "<details><summary>Calibration</summary>", "", *markdown(table), "", "</details>"]


def _comparisons(record: RunRecord) -> list[str]:
    if not record.comparisons:
        return []
    pooled = pooled_table(record)
    lines = ["## Paired comparisons"]
    if pooled.rows:
        lines += ["", "**over several test sets**", "", *markdown(pooled), "", "**by test set**"]
    return [*lines, "", *markdown(comparison_table(record))]


def _control(record: RunRecord) -> list[str]:
    sentence = control(record, main_test(record))
    if sentence is None:
        return []
    return ["## Did tracing help?", "", sentence, *(line for caveat in caveats(record) for line in ("", caveat))]


def _cost(record: RunRecord, figures: Sequence[str]) -> list[str]:
    if not record.methods:
        return []
    return [
        "## Cost",
        "",
        *markdown(cost_table(record)),
        *_figure("pareto.png", "Macro-F1 against trainable parameters", figures),
        *_figure("learning.png", "Development macro-F1 by epoch", figures),
    ]


def _damage(record: RunRecord) -> list[str]:
    if not record.methods:
        return []
    lines, besides = ["## Damage to the language model", "", *markdown(damage_table(record))], retention_table(record)
    return [*lines, "", *markdown(besides)] if besides.rows else lines


def _analysis(name: str, analysis: AnalysisRecord, figures: Sequence[str]) -> list[str]:
    section = analysis.section
    lines = [f"## {section.title}", "", section.sentence]
    if section.table is not None:
        lines += ["", *markdown(section.table)]
    return lines + _figure(f"analysis_{name}.png", section.title, figures)


def _figure(name: str, caption: str, figures: Sequence[str]) -> list[str]:
    """Lines that show a figure; none when it was not written."""
    return ["", f"![{caption}](figures/{name})"] if name in figures else []


def _export(record: RunRecord) -> list[str]:
    made = record.export
    if made is None:
        return []
    lines = [
        "## Export",
        "",
        descriptions.export(made),
        "",
        "```python",
    ]
    if made.merged is not None:
        lines += [
            "from transformers import AutoModelForCausalLM, AutoTokenizer",
            "",
            f'model = AutoModelForCausalLM.from_pretrained("{made.merged}")',
            f'tokenizer = AutoTokenizer.from_pretrained("{made.merged}")',
        ]
    if made.merged is None:  # also of a representation edit, which peft would leave out
        lines += ["import absa_edit", "", f'classifier = absa_edit.load("{made.adapter}")']
    elif made.adapter is not None:
        lines += ["", *_adapter_lines(record.model, made.adapter)]
    return [*lines, "```"]


def _adapter_lines(model: ModelSummary, adapter: str) -> list[str]:
    named = is_named(model.source)
    return [
        "# or the adapter on its base",
        *["from absa_edit import model_folder"] * named,
        "from peft import PeftModel",
        "from transformers import AutoModelForCausalLM",
        "",
        f'base = model_folder("{model.source}")' if named else f'base = "{model.source}"',
        f'model = AutoModelForCausalLM.from_pretrained(base, dtype="{model.dtype}")',
        f'model = PeftModel.from_pretrained(model, "{adapter}")',
    ]


def _reproduce(record: RunRecord, command: str | None) -> list[str]:
    lines = ["## Reproduce", ""]
    if command is not None:
        lines += ["```sh", command, "```", ""]
    return [*lines, *(f"- {sentence}" for sentence in descriptions.making(record))]
