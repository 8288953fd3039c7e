"""Make the wandb workspace view that shows this project's runs: results by method, tables, traces, curves, cost.

pip install 'absa_edit[dashboard]' && wandb login
absa-edit dashboard outputs/laptop14                    # the test sets of the runs found there
absa-edit dashboard outputs/laptop14 --project absa_edit --entity my-team
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from absa_edit.errors import RecordError
from absa_edit.results import RunRecord
from absa_edit.storage import load
from absa_edit.tracking.settings import TrackSettings


def main(arguments: Sequence[str], _: Path) -> None:
    parser = argparse.ArgumentParser(
        "absa-edit dashboard", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="folder with finished runs, whose test sets are shown")
    parser.add_argument("--project", default=TrackSettings().project)
    parser.add_argument("--entity", help="user or team; default: the login's")
    chosen = parser.parse_args(arguments)
    from absa_edit.tracking.workspace import save_dashboard

    settings = TrackSettings(project=chosen.project, entity=chosen.entity)
    sys.stdout.write(save_dashboard(settings, scored_on(chosen.folder)) + "\n")


def scored_on(folder: Path) -> list[str]:
    """Names of the test sets that the runs under `folder` were scored on, each once."""
    names: dict[str, None] = {}
    for path in sorted(folder.rglob("results.json")):
        data = load(RunRecord, path).data
        names |= dict.fromkeys(key.removeprefix("test/") for key in data if key.startswith("test/"))
    if not names:
        raise RecordError(f"{folder}: no results.json under it; expected a folder that `absa-edit train` wrote")
    return list(names)
