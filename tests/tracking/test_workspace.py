"""The workspace view, and what is said where it cannot be made."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from absa_edit.cli import main
from absa_edit.commands.dashboard import scored_on
from absa_edit.errors import SettingsError
from absa_edit.results import RunRecord
from absa_edit.storage import write_json
from absa_edit.tracking import workspace as dashboard
from absa_edit.tracking.settings import TrackSettings
from absa_edit.tracking.workspace import save_dashboard, workspace


@pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20")  # wandb-workspaces' own
def test_the_view_shows_what_is_tracked() -> None:
    pytest.importorskip("wandb_workspaces", reason="comes with the extra `dashboard`")
    view = workspace("me", "absa_edit", ["laptop14", "restaurant14"])
    assert [section.name for section in view.sections][:2] == ["Results", "Tables"]
    said = json.dumps(view._to_model().model_dump(), default=str)
    for key in ("test/restaurant14/macro_f1", "test/laptop14/accuracy", "compare/scores", "trace/heatmap"):
        assert key in said
    source = (Path(dashboard.__file__).parent / "log_records.py").read_text(encoding="utf-8")
    for key in (*dashboard.TABLES, "cost/trainable", "cost/peak_bytes", "damage/perplexity"):
        assert f'"{key}"' in source, f"{key} is published by nobody"


def test_without_the_package_or_a_login_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    with pytest.raises(SettingsError, match=re.escape("pip install 'absa_edit[dashboard]'")):
        save_dashboard(TrackSettings(), ["laptop14"])
    monkeypatch.setitem(sys.modules, "wandb_workspaces", dashboard)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with pytest.raises(SettingsError, match=r"no wandb login: run `wandb login`.*wandb sync"):
        save_dashboard(TrackSettings(), ["laptop14"])


def test_the_command_finds_the_test_sets(record: RunRecord, tmp_path: Path) -> None:
    for seed, tests in (("seed0", ["a", "b"]), ("seed1", ["b", "c"])):
        (tmp_path / seed).mkdir()
        data = {"train": record.data["train"]} | {f"test/{test}": record.data["dev"] for test in tests}
        write_json(replace(record, data=data), tmp_path / seed / "results.json")
    assert scored_on(tmp_path) == ["a", "b", "c"]
    with pytest.raises(SystemExit, match=r"error: .*no results\.json under it"):
        main(["dashboard", str(tmp_path / "nowhere")])
    (tmp_path / "seed0" / "results.json").write_text('{"results": ')
    with pytest.raises(SystemExit, match=r"error: .*results\.json is not a RunRecord"):
        main(["dashboard", str(tmp_path)])
