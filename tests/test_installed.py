"""The package as people install it: a wheel in an environment of its own, used from another folder."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def test_the_wheel_carries_every_group() -> None:
    build = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]
    listed = build["targets"]["wheel"]["force-include"]
    own = {f"conf/{path.name}" for path in (ROOT / "conf").iterdir() if path.name != "local"}
    assert listed == {name: f"absa_edit/{name}" for name in own}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` folder of a fresh environment that holds the wheel and sees the packages of this one."""
    if not find_spec("hatchling"):
        pytest.skip("needs hatchling, which builds the wheel: make test-slow installs it")
    folder = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    wheel = [*pip, "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(wheel, check=True, timeout=200)
    (built,) = folder.glob("absa_edit-*.whl")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], check=True, timeout=100)
    bin_, python = folder / "venv" / "bin", folder / "venv" / "bin" / "python"
    there = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True, text=True, check=True, timeout=100,
    ).stdout.strip()  # fmt: skip
    install = [*pip, "--python", str(python), "install", "--quiet", "--no-deps", str(built)]
    subprocess.run(install, check=True, timeout=100)
    # a plain path line does not run the other environment's own .pth files, so its editable absa_edit stays out
    Path(there, "other_packages.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return bin_


def run(command: list[str | Path], folder: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "ABSA_EDIT_DATA")}
    done = subprocess.run(command, cwd=folder, env=kept, capture_output=True, text=True, timeout=500)
    assert done.returncode == code, done.stderr
    return done


@pytest.mark.slow
def test_it_trains_predicts_and_compares_from_another_folder(installed: Path, tmp_path: Path) -> None:
    absa_edit = installed / "absa-edit"
    where = run([installed / "python", "-c", "import absa_edit; print(absa_edit.__file__)"], tmp_path).stdout
    assert str(installed.parent) in where
    assert "serve-check" in run([installed / "python", "-m", "absa_edit", "--help"], tmp_path).stdout
    assert "laptop14" in run([absa_edit, "train", "--help"], tmp_path).stdout

    done = run([absa_edit, "train", "+experiment=smoke", "model.device=cpu", "method=[zero_shot,edit]"], tmp_path)
    (folder,) = tmp_path.glob("outputs/*/reviewlm/seed0")
    assert str(folder.relative_to(tmp_path)) in done.stderr.splitlines()[0]
    report, ask = done.stdout.splitlines()[-2:]
    assert (tmp_path / report.removeprefix("report: ")).is_file()
    assert "Reproduce" not in ask and ask.startswith(f"absa-edit predict {folder.relative_to(tmp_path)} --sentence")
    assert "absa-edit train +experiment=smoke" in (folder / "report.md").read_text(encoding="utf-8")

    arguments = ["--sentence", "The fan never stops.", "--aspect", "fan", "--device", "cpu"]
    assert "positive" in run([absa_edit, "predict", folder, *arguments], tmp_path).stdout
    assert "edit - zero_shot" in run([absa_edit, "compare", "outputs"], tmp_path).stdout
    assert "vllm serve" in run([absa_edit, "serve-check", folder], tmp_path).stdout
    assert "17,497,920" in run([absa_edit, "model", "show", "reviewlm"], tmp_path).stdout


@pytest.mark.slow
def test_groups_of_your_own(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    own = "# @package _global_\ndefaults:\n  - smoke\nname: mine\nfit:\n  epochs: 7\n"
    (tmp_path / "mine" / "experiment" / "short.yaml").write_text(own, encoding="utf-8")
    shown = [installed / "absa-edit", "train", "--config-dir", "mine", "+experiment=short", "--cfg", "job"]
    assert "epochs: 7" in run(shown, tmp_path).stdout
