"""Small files written for the tests, and the folder of the public ones where there is one."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from material import Write, some

from absa_edit.data import sources
from absa_edit.data.public_sets import PUBLIC

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """A function that writes a file under the test's folder and gives its path."""

    def _write(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return _write


@pytest.fixture
def samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of small samples (laptop and restaurant) in place of the bundled one."""
    folder = tmp_path / "samples"
    folder.mkdir()
    for domain in ("laptop", "restaurant"):
        for split in ("train", "test"):
            (folder / f"{domain}_{split}.xml").write_text(some(f"{domain} {split}"))
    monkeypatch.setattr(sources, "SAMPLES", folder)
    return folder


@pytest.fixture
def any_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Public sets may have any number of aspects, so that a test's few lines can stand for them."""
    for name, public in PUBLIC.items():
        monkeypatch.setitem(PUBLIC, name, replace(public, counts={}))


@pytest.fixture
def public_data() -> Path:
    """The folder of the public data sets; skips where there is none."""
    named = os.environ.get("ABSA_EDIT_DATA")
    for folder in (*([Path(named)] if named else []), PROJECT.parent / "shared" / "data"):
        if (folder / "semeval14").is_dir() and (folder / "me_absc").is_dir():
            return folder
    pytest.skip("no public data: set ABSA_EDIT_DATA to a folder with semeval14/ and me_absc/")
