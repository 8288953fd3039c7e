"""The analyses of a run: each is run, or found in the run's folder."""

from __future__ import annotations

import logging

from absa_edit.analyses.base import analysis_of
from absa_edit.context import Context
from absa_edit.results import AnalysisRecord
from absa_edit.storage import load_kept, save_kept

log = logging.getLogger("absa_edit")


def run_analysis(ctx: Context, name: str) -> AnalysisRecord:
    """What the analysis called `name` found."""
    settings = ctx.settings.analysis[name]
    path = ctx.folder / "analyses" / f"{name}.json"
    key = ctx.key("analysis", name, type(settings).__name__, settings)
    if kept := load_kept(AnalysisRecord, path, key):
        log.info("%s: found in %s", name, path.parent)
        return kept
    chosen = analysis_of(settings, name)
    record = chosen.run(ctx, settings)
    made = AnalysisRecord(record, chosen.section(record))
    save_kept(made, path, key)
    log.info("%s: %s", name, made.section.sentence)
    return made
