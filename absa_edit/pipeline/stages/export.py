"""The export of one method of a run, held to the predictions of the model in memory."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable
from dataclasses import replace

from safetensors.torch import load_file

from absa_edit.context import Context
from absa_edit.data.prompts import Prompt
from absa_edit.errors import CannotMerge, SettingsError
from absa_edit.export.folder import describe, whole_folder, write_adapter, write_merged
from absa_edit.export.model_card import adapter_card, merged_card
from absa_edit.export.parity import check, plain_adapter, plain_merged
from absa_edit.export.remade import remade
from absa_edit.methods.adapted_model import AdaptedModel
from absa_edit.methods.base import adapt, method_of
from absa_edit.pipeline.stages.methods import Rows, predict, tracker_for
from absa_edit.results import ExportRecord, Prediction, RunRecord
from absa_edit.settings import Stage
from absa_edit.tracking.log_records import publish_export

log = logging.getLogger("absa_edit")


def method_to_export(ctx: Context, among: Iterable[str]) -> str | None:
    """The method to export of those named, decided before anything is trained."""
    wanted = ctx.settings.export.method
    if Stage.methods not in ctx.settings.stages or wanted == "none":
        return None
    methods = {name: method_of(ctx.settings.method[name]) for name in among}
    trained = [name for name, method in methods.items() if method.trains]
    if wanted is None:
        wanted = next(iter(trained), None)
    elif wanted not in trained:
        names = ", ".join(trained) or "none is left"
        raise SettingsError(f"export.method={wanted}: expected one of the trained methods ({names}), or none")
    if wanted and not ctx.settings.export.merged and not (methods[wanted].adapter or methods[wanted].adds_parts):
        raise SettingsError(
            f"export.merged=false leaves nothing of {wanted} to export: it has no adapter. Name another export.method, "
            "or none"
        )
    return wanted


def export_stage(
    ctx: Context, name: str, record: RunRecord, rows: Rows, tests: dict[str, list[Prompt]]
) -> ExportRecord:
    """Write the adapter and the merged checkpoint of a method, load both plainly, and hold them to its predictions.

    Raises `ExportMismatch` when one fails its proof (`absa_edit.export.parity`): a folder is in place only after it.
    """
    settings = ctx.settings
    adapted = adapt(ctx, settings.method[name], record.methods[name].plan)
    adapted.load_trained(load_file(ctx.folder / "methods" / name / "weights.safetensors"))
    edit = adapted.representation
    about = describe(adapted, ctx.lm.settings(), ctx.lm.sha256, settings.prompt, ctx.task)
    if (temperature := record.methods[name].temperature) is not None:
        about = replace(about, temperature=temperature.value)
    first = [row for test_rows in rows.values() for row in test_rows]

    def again(exported: AdaptedModel) -> list[Prediction]:
        return [row for test_rows in predict(ctx, "export", exported, tests).values() for row in test_rows]

    export = ctx.folder / "export"
    shutil.rmtree(export, ignore_errors=True)  # of another method, maybe
    adapter = merged = not_merged = None
    proofs = []
    if adapted.has_adapter:
        adapter = export / "adapter"
        with whole_folder(adapter) as unproven:
            write_adapter(adapted, unproven, about, adapter_card(record, name, about, rank=adapted.rank))
            loaded = remade(unproven, ctx.lm) if adapted.settings else plain_adapter(unproven, ctx.lm.model)
            proofs.append(check("adapter", loaded, first, again))
    if settings.export.merged and edit is None:  # a representation edit folds into no weight
        merged = export / "merged"
        try:
            with whole_folder(merged) as unproven:
                write_merged(adapted, ctx.lm.tokenizer, unproven, about, merged_card(record, name, about))
                exported = plain_merged(unproven, adapted.model)
                proofs.append(check("merged checkpoint", exported, first, again, merged=True))
        except CannotMerge as error:
            merged, not_merged = None, str(error)
            log.warning("export: %s; the adapter alone is exported", error)
    gaps, agreements = zip(*proofs, strict=True)
    paths = [str(p.relative_to(ctx.folder)) if p else None for p in (adapter, merged)]
    export_record = ExportRecord(name, paths[0], paths[1], max(gaps), min(agreements), len(first), not_merged)
    log.info(
        "export: %s reloads with %.4g %% of %d answers the same (largest gap %.1e)",
        name, 100 * export_record.agreement, export_record.n, export_record.max_logit_gap,
    )  # fmt: skip
    with tracker_for(ctx, "export", job_type="export") as tracker:
        publish_export(tracker, f"{ctx.experiment}-{name}".replace("+", "-"), export_record, ctx.folder)
    return export_record
