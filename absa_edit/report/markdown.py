"""`report.md`: what was run, what came out and how sure that is, readable in any viewer."""

from __future__ import annotations

from collections.abc import Sequence

from absa_edit.records import DataSummary, ModelSummary, RunRecord
from absa_edit.report import words
from absa_edit.report.findings import SAMPLE, findings, sample_warning
from absa_edit.report.results import (
    comparisons_section,
    control_section,
    cost_section,
    damage_section,
    figure,
    pipe_table,
    scores_section,
)


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
    warning = sample_warning(record)
    if warning is not None:
        lines += [f"> **{warning}**", ""]
    lines += [f"- {sentence}" for sentence in findings(record)]
    return lines


def _data(record: RunRecord) -> list[str]:
    model = record.model
    lines = [
        "## What was run",
        "",
        f"Model **{model.name}**: {model.parameters:,} parameters, {model.layers} layers, {model.dtype}, "
        f"weights `{model.sha256[:12]}`.",
        "",
    ]
    heads = ("split", "set", "source", "n", "positive", "negative", "neutral", "left out or noted", "SHA-256")
    return lines + pipe_table(heads, (_data_row(key, data) for key, data in record.data.items()))


def _data_row(key: str, data: DataSummary) -> list[str]:
    dropped = ", ".join(f"{reason} {n:,}" for reason, n in data.dropped.items()) or "nothing"
    digests = "<br>".join(f"{name} `{digest[:12]}`" for name, digest in data.sha256.items())
    name = f"**{data.name}** (bundled)" if data.name.endswith(SAMPLE) else data.name
    per_class = [f"{data.counts.get(p, 0):,}" for p in ("positive", "negative", "neutral")]
    return [key.partition("/")[0], name, data.source, f"{data.n:,}", *per_class, dropped, digests]


def _trace(record: RunRecord, figures: Sequence[str]) -> list[str]:
    trace = record.trace
    if trace is None:
        return []
    counts, peak = trace.counts, trace.peak
    lines = [
        "## Trace",
        "",
        f"{counts.seen:,} training examples looked at: {counts.clean_wrong:,} left out because the clean run "
        f"answers wrong, {counts.corrupted_right:,} because the corrupted run answers right, "
        f"**{counts.kept:,} kept**. Engine `{trace.engine}`, corruption `{trace.corruption}` on "
        f"`{trace.corrupted_tokens}`, {trace.samples} samples, windows of {trace.window} layers for attn and "
        f"mlp, {words.duration(trace.seconds)}.",
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
    layers, ranks = plan.layers(), sorted({t.rank for t in plan.targets})
    parts = " and ".join(sorted({t.site.part.value for t in plan.targets}))
    depth = max(record.model.layers - 1, 1)
    where = f"layers {words.runs(layers)} of {record.model.layers} (from 0)" if layers else "nowhere"
    span = f", {100 * layers[0] / depth:.0f}-{100 * layers[-1] / depth:.0f} % of the depth" if layers else ""
    stable = "" if plan.stability is None else (
        f" Stability {plan.stability:.2f}: mean Jaccard overlap of the targets over resamples of the trace."
    )  # fmt: skip
    return [
        "## Plan",
        "",
        f"Source `{plan.source}`: {len(plan.targets)} targets, {parts} of {where}{span}, rank "
        f"{', '.join(map(str, ranks))}, {plan.parameters:,} parameters.{stable}",
        "",
        "```text",
        *words.plan_sketch(plan, record.model.layers),
        "```",
    ]


def _export(record: RunRecord) -> list[str]:
    made = record.export
    if made is None:
        return []
    lines = [
        "## Export",
        "",
        f"`{made.method}`, loaded back and asked all {made.n:,} test questions again: "
        f"{100 * made.agreement:.4g} % the same labels, largest gap of a label's log-probability "
        f"{made.max_logit_gap:.1e}.",
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
    if made.adapter is not None:
        lines += [""] * (made.merged is not None) + _adapter_lines(record.model, made.adapter)
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
    took = ", ".join(f"{stage} {words.duration(s)}" for stage, s in record.seconds.items() if s)
    versions = ", ".join(f"{name} {version}" for name, version in record.versions.items())
    lines.append(f"- Settings `{record.config_hash}`, commit `{record.git or 'none'}`, seed {record.seed}.")
    if took:
        lines.append(f"- Time of each stage that ran: {took}.")
    return [*lines, f"- Versions: {versions}."]
