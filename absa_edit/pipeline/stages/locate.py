"""The plan of a run: chosen by the localizer that the settings name, or found where an earlier run shared it."""

from __future__ import annotations

import logging

from absa_edit.context import Context
from absa_edit.localizers.base import locate
from absa_edit.localizers.settings import LOCALIZERS
from absa_edit.pipeline.shared_cache import shared_folder
from absa_edit.records import EditPlan
from absa_edit.storage import load_kept, save_kept, write_json

log = logging.getLogger("absa_edit")


def locate_stage(ctx: Context) -> EditPlan:
    """The plan, also written to `plan.json`."""
    settings = ctx.settings.locate
    key = ctx.key("plan", type(settings).__name__, settings, ctx.traced_as)
    path = shared_folder(ctx, "plan", key) / "record.json"
    chooses = LOCALIZERS[settings.kind].chooses  # what is chosen by hand depends on files, and takes no time
    plan = load_kept(EditPlan, path, key) if chooses else None
    if plan is None:
        plan = locate(ctx, settings, ctx.rng("locate"))
        if chooses:
            save_kept(plan, path, key)
    write_json(plan, ctx.folder / "plan.json")
    return plan
