"""The export of one method of a run, held to the predictions of the model in memory."""

from __future__ import annotations

import logging
import shutil

from safetensors.torch import load_file

from absa_edit.adapt import Adapted, adapt
from absa_edit.config import Edit, Lora, Stage, ZeroShot
from absa_edit.data.prompts import Prompt
from absa_edit.errors import ExportMismatch, SettingsError
from absa_edit.export.card import adapter_card, merged_card
from absa_edit.export.folder import describe, write_adapter, write_merged
from absa_edit.export.parity import check, plain_adapter, plain_merged
from absa_edit.report.publish import publish_export
from absa_edit.results import ExportRecord, Prediction, RunRecord
from absa_edit.run import Run
from absa_edit.stages.method import Rows, predict, tracker_for

log = logging.getLogger("absa_edit")


def method_to_export(run: Run) -> str | None:
    """The method to export, decided before anything is trained."""
    wanted, methods = run.settings.export.method, run.settings.method
    if Stage.methods not in run.settings.stages or wanted == "none":
        return None
    if wanted is None:
        trained = [name for name, method in methods.items() if not isinstance(method, ZeroShot)]
        return "edit" if "edit" in trained else trained[-1] if trained else None
    if wanted not in methods or isinstance(methods[wanted], ZeroShot):
        raise SettingsError(f"export.method={wanted}: expected one of the trained methods {', '.join(methods)}")
    if not run.settings.export.merged and not isinstance(methods[wanted], Edit | Lora):
        raise SettingsError(f"export.merged=false leaves nothing of {wanted} to export: it has no adapter")
    return wanted


def export_stage(run: Run, name: str, record: RunRecord, rows: Rows, tests: dict[str, list[Prompt]]) -> ExportRecord:
    """Write the adapter and the merged checkpoint of a method, load both plainly, and hold them to its predictions."""
    settings = run.settings
    method = settings.method[name]
    adapted = adapt(run.lm.model, method, record.methods[name].plan, seed=settings.seed)
    adapted.load_trained(load_file(run.folder / "methods" / name / "weights.safetensors"))
    edit = adapted.representation
    about = describe(adapted, settings.model, run.lm.sha256, settings.prompt)
    first = [row for one in rows.values() for row in one]

    def again(exported: Adapted) -> list[Prediction]:
        return [row for one in predict(run, "export", exported, tests).values() for row in one]

    export = run.folder / "export"
    shutil.rmtree(export, ignore_errors=True)  # of another method, maybe
    adapter = merged = None
    gaps = [0.0]
    try:
        if adapted.peft or edit:
            adapter = export / "adapter"
            write_adapter(adapted, adapter, about, adapter_card(record, name, about, rank=adapted.rank))
            gaps.append(check("adapter", plain_adapter(adapter, run.lm.model), first, again)[0])
        if settings.export.merged and edit is None:  # a representation edit folds into no weight
            merged = export / "merged"
            write_merged(adapted, run.lm.tokenizer, merged, about, merged_card(record, name, about))
            gaps.append(check("merged checkpoint", plain_merged(merged, adapted.model), first, again)[0])
    except ExportMismatch:
        shutil.rmtree(export)  # an export without its proof must not serve anyone
        raise
    paths = [str(p.relative_to(run.folder)) if p else None for p in (adapter, merged)]
    found = ExportRecord(name, paths[0], paths[1], max(gaps), 1.0, len(first))
    log.info("export: %s reloads with the same %d answers (largest gap %.1e)", name, found.n, found.max_logit_gap)
    with tracker_for(run, "export", job_type="export") as tracker:
        publish_export(tracker, f"{run.experiment}-{name}".replace("+", "-"), found, run.folder)
    return found
