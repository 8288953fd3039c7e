"""The wandb workspace over the runs that `track.py` and `publish.py` write: results, tables, curves, cost, traces."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from absa_edit.errors import SettingsError
from absa_edit.report.lookup import METRICS
from absa_edit.tracking.settings import TrackSettings
from absa_edit.tracking.wandb import logged_in

NAME = "absa_edit"
TABLES = ("compare/scores", "compare/paired", "compare/pooled", "compare/findings", "trace/effects", "predictions")
CURVES = ("fit/loss", "dev/macro_f1", "dev/accuracy", "dev/log_loss")
FIGURES = ("trace/heatmap", "figures/scores", "figures/pareto", "figures/learning")


def save_dashboard(settings: TrackSettings, tests: Sequence[str]) -> str:
    """The address of a saved workspace view that shows the project's runs; each call makes a new view.

    Raises `SettingsError` when wandb-workspaces is not installed, there is no login, or the server refuses.
    """
    try:
        import wandb_workspaces  # noqa: F401
    except ImportError:
        raise SettingsError("wandb-workspaces is not installed: `pip install 'absa_edit[dashboard]'`") from None
    if not logged_in():
        raise SettingsError(
            "there is no wandb login: run `wandb login` or set WANDB_API_KEY, upload what was tracked offline with "
            "`wandb sync <run folder>/wandb/offline-run-*`, then run this again"
        )
    import wandb

    try:
        entity = settings.entity or str(wandb.Api().default_entity)
        return str(workspace(entity, settings.project, tests).save().url)
    except (wandb.errors.Error, OSError, ValueError) as error:
        raise SettingsError(f"wandb: {error}; check the login, the entity and the project") from error


def workspace(entity: str, project: str, tests: Sequence[str]) -> Any:
    """The view, not saved: runs that differ by the seed alone are one group, and one bar of a panel."""
    import wandb_workspaces.reports.v2 as panels
    import wandb_workspaces.workspaces as ws

    bars = [
        panels.BarPlot(
            title=f"{name}, {test} (mean and deviation over seeds)",
            metrics=[panels.SummaryMetric(f"test/{test}/{metric}")],
            groupby=panels.Config("group"),
            groupby_aggfunc="mean",
            groupby_rangefunc="stddev",
        )
        for test in tests
        for metric, name in METRICS.items()
    ]
    curves = [panels.LinePlot(title=key, x="Step", y=[key]) for key in CURVES]
    cost = [
        panels.ScatterPlot(
            title=f"macro-F1 on {test} against trained parameters",
            x=panels.SummaryMetric("cost/trainable"),
            y=panels.SummaryMetric(f"test/{test}/macro_f1"),
            log_x=True,
        )
        for test in tests
    ]
    cost += [
        panels.BarPlot(title=key, metrics=[panels.SummaryMetric(key)], groupby=panels.Config("group"))
        for key in ("cost/fit_seconds", "cost/peak_bytes", "damage/perplexity")
    ]
    return ws.Workspace(
        entity=entity,
        project=project,
        name=NAME,
        sections=[
            ws.Section(name="Results", panels=bars, is_open=True),
            ws.Section(name="Tables", panels=[panels.WeavePanelSummaryTable(table_name=name) for name in TABLES]),
            ws.Section(name="Traces and figures", panels=[panels.MediaBrowser(media_keys=list(FIGURES))]),
            ws.Section(name="Learning", panels=curves),
            ws.Section(name="Cost and damage", panels=cost),
        ],
        runset_settings=ws.RunsetSettings(groupby=[ws.Config("group")]),
    )
