"""Trackers: nothing without wandb, and with it offline files that hold what was handed over."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import wandb

from absa_edit.errors import SettingsError
from absa_edit.report.plots.scores import learning_curves
from absa_edit.results import ExportRecord, RunRecord
from absa_edit.tracking import wandb as track_module
from absa_edit.tracking.log_records import publish_comparison, publish_epoch, publish_export, publish_method
from absa_edit.tracking.settings import Tracker as Kind
from absa_edit.tracking.settings import TrackSettings
from absa_edit.tracking.wandb import NullTracker, Tracker, WandbTracker, artifact_name, track

ROOT = Path(__file__).resolve().parents[2]
NONE, WANDB = TrackSettings(kind=Kind.none), TrackSettings(kind=Kind.wandb)
ABOUT: dict[str, Any] = {
    "group": "laptop14-reviewlm",
    "name": "edit-0",
    "job_type": "fit",
    "config": {"seed": 0},
}


@pytest.fixture(autouse=True)
def no_login(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for key in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_IDENTITY_TOKEN_FILE", "RANK"):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


def use_all(tracker: Tracker, folder: Path) -> None:
    tracker.log({"fit/loss": 1.0}, step=1)
    tracker.summary({"test/x/accuracy": 0.5})
    tracker.table("t", ["a"], [[1]])
    tracker.image("i", folder / "none.png")
    tracker.artifact("a", "adapter", folder)


def test_the_null_tracker_needs_no_wandb(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with track(NONE, **ABOUT, folder=tmp_path / "run") as tracker:
        use_all(tracker, tmp_path)
    assert not (tmp_path / "run").exists()


def test_names_that_wandb_refuses_are_shortened_and_stay_apart(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{}")
    long = [f"laptop14-{'x' * 200}{tail}" for tail in "ab"]
    with track(WANDB, **ABOUT, tags=["t" * 90], folder=tmp_path / "run") as tracker:
        for name in [*long, "ordinateur-\u00e9", "ordinateur-\u00e8", "plain-edit"]:
            tracker.artifact(name, "adapter", tmp_path)
    names = [artifact_name(name) for name in [*long, "ordinateur-\u00e9", "ordinateur-\u00e8"]]
    assert len(set(names)) == 4 and max(map(len, names)) <= 128
    assert artifact_name("plain-edit") == "plain-edit"


def test_wandb_without_wandb_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with (
        pytest.raises(SettingsError, match=r"pip install wandb.*track=none"),
        track(WANDB, **ABOUT, folder=tmp_path),
    ):
        pass


def test_a_folder_called_wandb_is_not_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace())
    with pytest.raises(SettingsError, match="not installed"), track(WANDB, **ABOUT, folder=tmp_path):
        pass


def test_only_the_first_process_tracks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RANK", "1")
    with track(WANDB, **ABOUT, folder=tmp_path) as tracker:
        assert isinstance(tracker, NullTracker)


def test_mode_follows_the_login(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    known = SimpleNamespace(mode="online", base_url="https://api.wandb.ai")
    assert track_module._mode(known) == "offline"
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password key\n")
    assert track_module._mode(known) == "online"
    assert track_module._mode(SimpleNamespace(mode="online", base_url="https://wandb.mine")) == "offline"
    assert track_module._mode(wandb.Settings()) == "online", "whatever its host is called by now"
    (tmp_path / "netrc").write_text("machine api.forge.coreweave.com login user password key\n")
    assert track_module.logged_in()
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert track_module._mode(known) == "disabled"


@pytest.mark.slow  # starts wandb's service
def test_what_wandb_was_told_before_is_respected(tmp_path: Path) -> None:
    """After `wandb offline` nothing is uploaded, though there is a key."""
    kept = tmp_path / ".config/wandb/settings"
    kept.parent.mkdir(parents=True)
    kept.write_text("[default]\nmode = offline\n")
    code = (
        "from pathlib import Path; from absa_edit.tracking.settings import TrackSettings"
        "; from absa_edit.tracking.wandb import track\n"
        "with track(TrackSettings(), group='g', name='n', job_type='fit', config={}, folder=Path('run')): pass"
    )
    environ = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_")}
    environ |= {"HOME": str(tmp_path), "WANDB_API_KEY": "0" * 40, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environ, check=True, capture_output=True, timeout=60)
    assert list(tmp_path.glob("run/wandb/offline-run-*"))


def test_online_without_a_login_is_an_error_not_a_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    with pytest.raises(SettingsError, match="wandb login"):
        track_module._mode(SimpleNamespace(mode="online", base_url="https://api.wandb.ai"))


def test_an_unreachable_server_means_offline(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class CommError(Exception):
        pass

    modes = []

    class Context:
        def __enter__(self) -> Context:
            return self

        def __exit__(self, *_: object) -> None: ...

    def init(**settings: Any) -> Context:
        modes.append(settings["mode"])
        if settings["mode"] == "online":
            raise CommError("timed out")
        return Context()

    known = SimpleNamespace(settings=SimpleNamespace(mode="online", base_url="https://api.wandb.ai"))
    fake = SimpleNamespace(
        init=init, setup=lambda settings: known, Settings=dict, errors=SimpleNamespace(CommError=CommError)
    )
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.setenv("WANDB_API_KEY", "x")
    with track(WANDB, **ABOUT, folder=tmp_path) as tracker:
        assert isinstance(tracker, WandbTracker)
    assert modes == ["online", "offline"] and "tracking offline" in caplog.text


# ---- real offline runs


def stored(folder: Path) -> list[Any]:
    """The records of the one offline run under `folder`, once its last one is there.

    `finish()` returns while wandb's service still writes the file: for up to a second it may hold nothing.
    """
    (path,) = folder.glob("wandb/offline-run-*/*.wandb")
    for _ in range(100):
        records = parsed(path.read_bytes())
        if any(record.WhichOneof("record_type") == "exit" for record in records):
            return records
        time.sleep(0.1)
    raise AssertionError(f"{path} has no end")


def parsed(data: bytes) -> list[Any]:
    """The whole records of a run file."""
    from wandb.proto.wandb_internal_pb2 import Record

    records, whole = [], b""
    for kind, piece in chunks(data):
        whole += piece
        if kind in (1, 4):  # full, or the last piece
            record = Record()
            record.ParseFromString(whole)
            records.append(record)
            whole = b""
    return records


def chunks(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Kind and bytes of each piece of a LevelDB log of 32 KiB blocks after wandb's 7-byte head."""
    at = 7
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, size, kind = struct.unpack("<IHB", data[at : at + 7])
        yield kind, data[at + 7 : at + 7 + size]
        at += 7 + size


def items(records: list[Any], kind: str) -> dict[str, Any]:
    """All keys of the history or summary, with their last value."""
    found = {}
    for record in records:
        part = record.history.item if kind == "history" else record.summary.update
        found |= {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in part}
    return found


@pytest.mark.slow
def test_an_offline_run_keeps_everything_in_its_folder(
    record: RunRecord, predictions: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    home, folder = tmp_path / "home", tmp_path / "run"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(home)
    (folder / "export/adapter").mkdir(parents=True)
    (folder / "export/adapter/adapter_config.json").write_text("{}")
    learning_curves(record, folder / "figures/learning.png")
    with track(WANDB, **ABOUT, tags=("laptop14", "edit"), folder=folder) as tracker:
        fit = record.methods["edit"].fit
        assert fit is not None
        for row in fit.history:
            publish_epoch(tracker, row)
        publish_method(tracker, "edit", record.methods["edit"], predictions)
        publish_comparison(tracker, record, [folder / "figures/learning.png"])
        export = ExportRecord("edit", "export/adapter", "export/merged", 1e-6, 1.0, 6)
        publish_export(tracker, "laptop14 edit/0", export, folder)
    records = stored(folder)
    run = next(r.run for r in records if r.WhichOneof("record_type") == "run")
    assert (run.run_group, run.display_name, run.job_type) == ("laptop14-reviewlm", "edit-0", "fit")
    assert list(run.tags) == ["laptop14", "edit"]
    history, summary = items(records, "history"), items(records, "summary")
    assert history["dev/macro_f1"] == pytest.approx(fit.history[-1]["dev_macro_f1"])
    assert history["figures/learning/_type"] == "image-file"
    assert summary["test/laptop14/macro_f1"] == 0.655
    assert summary["test/laptop14/macro_f1_low"] == pytest.approx(0.621)
    assert summary["test/laptop14/macro_f1_n"] == 638
    table = json.loads(next(folder.glob("wandb/*/files/media/table/predictions*.json")).read_text())
    assert table["columns"][:2] == ["id", "test"] and len(table["data"]) == 6
    assert next(folder.glob("wandb/*/files/media/table/confusion/laptop14*.json")).exists()
    assert next(folder.glob("wandb/*/files/media/table/compare/scores*.json")).exists()
    kept = {a.name: a.type for r in records if r.WhichOneof("record_type") == "artifact" for a in [r.artifact]}
    assert kept["laptop14-edit-0"] == "adapter"
    assert "merged" not in " ".join(kept)
    assert not list(home.iterdir())
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow  # starts wandb's service twice
def test_an_error_marks_the_run_failed_and_the_next_starts_fresh(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), track(WANDB, **ABOUT, folder=tmp_path / "a"):
        raise ZeroDivisionError
    with track(WANDB, **ABOUT, folder=tmp_path / "b") as tracker:
        tracker.log({"fit/loss": 0.5}, step=3)
    codes = [
        next(r.exit.exit_code for r in stored(tmp_path / run) if r.WhichOneof("record_type") == "exit") for run in "ab"
    ]
    assert codes == [1, 0]
    assert items(stored(tmp_path / "b"), "history")["fit/loss"] == 0.5


@pytest.mark.slow
def test_multirun_gives_separate_runs_that_share_a_group(tmp_path: Path) -> None:
    """Two seeds of one method: runs of their own, told apart by the seed alone."""
    command = [sys.executable, "train.py", "-m", "+experiment=smoke", "track=wandb", "seed=0,1", f"output={tmp_path}"]
    command += ["method=zero_shot", "stages=[methods]", "data.limit_train=20", "data.limit_test=4", "data.tests=[]"]
    environ = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_")}
    subprocess.run(command, cwd=ROOT, env=environ, check=True, capture_output=True, timeout=300)
    folders = sorted(tmp_path.rglob("seed?"))
    assert [folder.name for folder in folders] == ["seed0", "seed1"]
    runs = [next(r.run for r in stored(f) if r.WhichOneof("record_type") == "run") for f in folders]
    assert len({run.run_id for run in runs}) == 2 and len({run.run_group for run in runs}) == 1
    assert runs[0].run_group.endswith("/reviewlm/zero_shot")
    assert [run.display_name for run in runs] == ["zero_shot-seed0", "zero_shot-seed1"]
    for seed, run in enumerate(runs):
        config = {item.key: json.loads(item.value_json) for item in run.config.update}
        assert config["seed"] == seed and config["data"]["limit_train"] == 20
        assert config["method"] == "zero_shot" and config["fit"]["epochs"] == 1
        assert list(config["methods"]) == ["zero_shot"]
