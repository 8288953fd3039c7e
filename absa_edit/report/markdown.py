"""`report.md`: what was run, what came out and how sure that is, readable in any viewer."""

from __future__ import annotations

from collections.abc import Sequence

from absa_edit.report import descriptions, formatting
from absa_edit.report.conclusions import findings, warnings
from absa_edit.report.results import (
    comparisons_section,
    control_section,
    cost_section,
    damage_section,
    data_table,
    figure,
    scores_section,
)
from absa_edit.results import ModelSummary, RunRecord
from absa_edit.table import pipe_table


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
        scores_section(record, figures),
        comparisons_section(record),
        control_section(record),
        cost_section(record, figures),
        damage_section(record),
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
    return ["## What was run", "", descriptions.model(record.model), "", *pipe_table(*data_table(record))]


def _trace(record: RunRecord, figures: Sequence[str]) -> list[str]:
    trace = record.trace
    if trace is None:
        return []
    peak = trace.peak
    lines = [
        "## Trace",
        "",
        descriptions.trace(trace),
        "",
        f"- Total effect of the corruption: {trace.total_effect.percent()} points of p(gold), "
        f"n = {trace.total_effect.n:,}.",
        f"- Peak: {peak.part.value}, layer {peak.layer} of {record.model.layers} (from 0), role "
        f"{peak.role.value}: {peak.effect.percent()} points, n = {peak.effect.n:,}.",
        "",
        "Where along the depth (0 is the first layer, 100 the last):",
        "",
    ]
    rows = (
        [part, d.peak_layer.percent(), d.centre_of_mass.percent(), d.middle_third_share.percent()]
        for part, d in trace.depth.items()
    )
    lines += pipe_table(("part", "peak (%)", "centre of mass (%)", "share in the middle third (%)"), rows)
    return lines + figure("trace.png", figures)


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
    bundled = model.source == "reviewlm"
    return [
        "# or the adapter on its base",
        *["from importlib.resources import files"] * bundled,
        "from peft import PeftModel",
        "from transformers import AutoModelForCausalLM",
        "",
        'base = str(files("absa_edit") / "assets" / "reviewlm")' if bundled else f'base = "{model.source}"',
        f'model = AutoModelForCausalLM.from_pretrained(base, dtype="{model.dtype}")',
        f'model = PeftModel.from_pretrained(model, "{adapter}")',
    ]


def _reproduce(record: RunRecord, command: str | None) -> list[str]:
    lines = ["## Reproduce", ""]
    if command is not None:
        lines += ["```sh", command, "```", ""]
    return [*lines, *(f"- {sentence}" for sentence in descriptions.making(record))]
