"""The command line itself: help, what it does not know, Ctrl-C, and what it writes into a file."""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pytest

from absa_edit import __version__
from absa_edit.cli import COMMANDS, main
from absa_edit.commands import predict

ROOT = Path(__file__).resolve().parents[1]
ABSA_EDIT = [sys.executable, "-m", "absa_edit"]


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--help"])
    told = capsys.readouterr().out
    assert all(f"  {name} " in told for name in COMMANDS)
    main(["--version"])
    assert capsys.readouterr().out == f"absa-edit {__version__}\n"


def test_without_a_command_it_says_which_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([])
    assert "serve-check" in capsys.readouterr().out


@pytest.mark.parametrize(("name", "advice"), [("trian", "Did you mean train?"), ("xyz", "Expected one of train, ")])
def test_an_unknown_command_is_named(name: str, advice: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([name])
    assert f"no command '{name}'. {advice}" in capsys.readouterr().err


@pytest.mark.parametrize("name", COMMANDS)
def test_help_does_not_wait_for_torch(name: str) -> None:
    script = "import sys; from absa_edit.cli import main\n"
    script += f"try: main([{name!r}, '--help'])\nfinally: print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0 and f"absa-edit {name}" in done.stdout
    assert done.stdout.splitlines()[-1] == "False"


def test_the_help_of_train_is_short(capsys: pytest.CaptureFixture[str]) -> None:
    main(["train", "--help"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 15 and sum(line.startswith("  absa-edit train ") for line in lines) == 3
    assert all(len(line) <= 120 for line in lines)


def test_an_interruption_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(predict, "main", Mock(side_effect=KeyboardInterrupt))
    monkeypatch.setattr(logging, "disable", Mock())  # it would hold for the tests that follow
    with pytest.raises(SystemExit, match="130"):
        main(["predict", "somewhere"])
    assert capsys.readouterr().err == "interrupted\n"


def started(command: list[str], log: Path, seen: str) -> subprocess.Popen[bytes]:
    """A running command whose output goes to `log`, once `seen` stands there."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_")}
    with log.open("wb") as file:
        process = subprocess.Popen([*ABSA_EDIT, *command], cwd=ROOT, env=environ, stdout=file, stderr=file)
    end = time.monotonic() + 100
    while seen not in log.read_text() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    assert seen in log.read_text()
    return process


@pytest.mark.parametrize(
    "more", [pytest.param([], id="run", marks=pytest.mark.slow), pytest.param(["-m", "seed=0,1"], id="sweep")]
)
def test_ctrl_c_is_one_line_and_exit_130(more: list[str], tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = started(["train", *more, "+experiment=smoke", f"output={tmp_path / 'out'}"], log, " · ")
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    told = log.read_text()
    assert told.endswith("interrupted: the same command goes on from here\n") and "Traceback" not in told


def test_ctrl_c_before_anything_is_loaded(tmp_path: Path) -> None:
    """While torch and transformers are imported, or data read."""
    command = [*ABSA_EDIT, "train", "+experiment=smoke", f"output={tmp_path}"]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    time.sleep(2.0)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=200)
    assert process.returncode == 130 and told.endswith("interrupted: the same command goes on from here\n"), told
    assert "Traceback" not in told


def test_ctrl_c_inside_an_exec_of_text(tmp_path: Path) -> None:
    """As dataclasses run theirs while a library is imported."""
    plugin = tmp_path / "interrupted.py"
    plugin.write_text("import os\nexec('os.kill(os.getpid(), 2)\\nfor _ in range(10**8): pass')\n")
    command = [*ABSA_EDIT, "train", "+experiment=smoke", f"plugins=[{plugin}]", f"output={tmp_path}"]
    process = subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert process.returncode == 130 and process.stderr.endswith("the same command goes on from here\n")


@pytest.mark.slow
def test_a_log_in_a_file_is_lines(tmp_path: Path) -> None:
    """Its first line says what runs where, its last two where to look and how to ask."""
    log = tmp_path / "log"
    process = started(["train", "+experiment=smoke", "method=[edit]", f"output={tmp_path / 'out'}"], log, " · ")
    assert process.wait(300) == 0
    told = log.read_text()
    assert "\r" not in told and "\x1b" not in told and "it/s" not in told and "Loading" not in told
    lines = told.splitlines()
    (folder,) = (tmp_path / "out").glob("*/*/seed0")
    opening = r"reviewlm \(17\.5 M parameters\) · laptop-sample \(\d+ train, 24 test\) · \w+ · "
    opening += rf"trace float32, training \w+ · {folder}"
    assert re.fullmatch(rf"\[\d\d:\d\d:\d\d\] {opening}", lines[0])
    assert lines[-2:] == [
        f"report: {folder / 'report.html'}",
        f"absa-edit predict {folder} --sentence 'The fan never stops.' --aspect fan",
    ]
    assert (folder / "overrides.txt").read_text().splitlines()[:2] == ["+experiment=smoke", "method=[edit]"]


@pytest.mark.parametrize(
    ("arguments", "environ", "named"),
    [
        (["output=README.md"], {}, "output=README.md: expected a folder"),
        (["+fit.epoch=9"], {}, "fit.epoch: unknown setting. Did you mean fit.epochs?"),
        (["track=wandb"], {"WANDB_MODE": "online"}, "WANDB_MODE=online, but there is no login"),
    ],
)
def test_what_cannot_be_is_told_before_the_model_is_loaded(
    arguments: list[str], environ: dict[str, str], named: str, tmp_path: Path, capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch, refuse_to_load: Callable[[], None],
) -> None:  # fmt: skip
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", sys.argv)  # Hydra reads it, so the command sets it
    monkeypatch.setattr(logging.root, "handlers", [])  # which Hydra sets too
    monkeypatch.setattr(logging.root, "level", logging.WARNING)
    output = [] if arguments[0].startswith("output") else [f"output={tmp_path}"]
    with pytest.raises(SystemExit, match="1"):
        main(["train", "+experiment=smoke", *arguments, *output], root=ROOT)
    assert named in capfd.readouterr().err


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("method.edit.rnak=3", "method.edit.rnak: unknown setting. Did you mean locate.rank or method.lora.rank?"),
        ("sede=1", "sede: unknown setting. Did you mean seed?"),
        ("trace={exmples:1}", "trace.exmples: unknown setting. Did you mean trace.examples?"),
        ("trace.samples=many", "trace.samples=many Value 'many' of type 'str' could not be converted to Integer"),
        ("+experiment=laptop15", "Could not find 'experiment/laptop15' Available options in 'experiment': laptop14, "),
        ("method=[lra]", "Could not load 'method/lra'."),
        ("trace.samples=[", "no viable alternative at input '['"),
        ("experiment=smoke", "No match in the defaults list. To append to your default list use +experiment=smoke"),
        ("+trace.samples=1", "An item is already at 'trace.samples'. Either remove + prefix: 'trace.samples=1'"),
        ("~nothing", "Could not delete from config. 'nothing' does not exist."),
    ],
)
def test_what_hydra_refuses_is_one_line(override: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    with pytest.raises(SystemExit) as stop:
        main(["train", override], root=ROOT)
    said = str(stop.value.code)
    assert said.startswith("error: ") and told in said and "\n" not in said and "HYDRA_FULL_ERROR" not in said


@pytest.fixture
def refuse_to_load(monkeypatch: pytest.MonkeyPatch) -> None:
    from absa_edit.pipeline import prepare

    monkeypatch.setattr(prepare, "load_model", Mock(side_effect=AssertionError("it is too early")))
