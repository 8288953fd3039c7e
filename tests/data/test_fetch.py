"""Bringing public sets into a data folder: counts, both files or neither, and where downloads are looked through."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from material import xml14

from absa_edit.data import fetch as module
from absa_edit.data.fetch import fetch
from absa_edit.data.public_sets import PUBLIC
from absa_edit.data.settings import DataSettings
from absa_edit.data.sources import load_pair
from absa_edit.errors import DataError

LAPTOP = replace(PUBLIC["laptop14"], counts={"train": (1, 1, 0), "test": (0, 0, 1)}, sha256={})
TRAIN = xml14(("A fine lid.", "lid", "positive"), ("A bad fan.", "fan", "negative"))
TEST = xml14(("A lid is a lid in a box.", "box", "neutral"))
TRAIN_NAME, TEST_NAME = "Laptops_Train_v2.xml", "Laptops_Test_Gold.xml"


def put(folder: Path, train: str = TRAIN, test: str = TEST) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / TRAIN_NAME).write_text(train, encoding="utf-8")
    (folder / TEST_NAME).write_text(test, encoding="utf-8")
    return folder


def everything(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.usefixtures("any_counts")
def test_from_a_folder_whatever_its_shape(tmp_path: Path) -> None:
    put(tmp_path / "mine" / "deep" / "down")
    out = tmp_path / "data"
    train, test = fetch(LAPTOP, out, [tmp_path / "mine"])
    assert everything(out) == {f"semeval14/{TRAIN_NAME}", f"semeval14/{TEST_NAME}"}
    assert (train.counts, test.counts) == ((1, 1, 0), (0, 0, 1))
    assert train.path.read_text(encoding="utf-8") == TRAIN
    pair = load_pair(DataSettings(name="laptop14", path=str(out)), root=tmp_path, environ={})
    assert [len(split) for split in pair] == [2, 1]


def test_from_two_zip_files(tmp_path: Path) -> None:
    for name, inside, text in (("a.zip", f"v2/{TRAIN_NAME}", TRAIN), ("b.zip", TEST_NAME, TEST)):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr(inside, text)
    out = tmp_path / "data"
    train, test = fetch(LAPTOP, out, [tmp_path / "a.zip", tmp_path / "b.zip"])
    assert train.origin == f"{tmp_path / 'a.zip'}, v2/{TRAIN_NAME}"
    assert test.path.read_text(encoding="utf-8") == TEST


def test_wrong_counts_leave_nothing_behind(tmp_path: Path) -> None:
    put(tmp_path / "mine", test=TEST.replace("neutral", "positive"))
    with pytest.raises(DataError, match=r"1 aspects \(1 positive, 0 negative, 0 neutral\); laptop14 has 1 aspects \(0"):
        fetch(LAPTOP, tmp_path / "data", [tmp_path / "mine"])
    assert everything(tmp_path / "data") == set()


def test_a_broken_file_is_named_by_where_it_came_from(tmp_path: Path) -> None:
    put(tmp_path / "mine", train=TRAIN[:60])
    with pytest.raises(DataError, match=rf"mine/{TRAIN_NAME}: not well-formed XML"):
        fetch(LAPTOP, tmp_path / "data", [tmp_path / "mine"])


def test_a_different_file_is_not_replaced(tmp_path: Path) -> None:
    put(tmp_path / "mine")
    fetch(LAPTOP, tmp_path / "data", [tmp_path / "mine"])
    fetch(LAPTOP, tmp_path / "data", [tmp_path / "mine"])  # the same again is fine
    (tmp_path / "data" / "semeval14" / TEST_NAME).write_text("my own", encoding="utf-8")
    with pytest.raises(DataError, match="is there already and differs"):
        fetch(LAPTOP, tmp_path / "data", [tmp_path / "mine"])


def test_what_is_missing_or_there_twice_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder or file"):
        fetch(LAPTOP, tmp_path, [tmp_path / "nowhere"])
    put(tmp_path / "mine")
    (tmp_path / "mine" / TEST_NAME).unlink()
    with pytest.raises(DataError, match=rf"no {TEST_NAME} in .*mine\. Give the folders"):
        fetch(LAPTOP, tmp_path / "data", [tmp_path / "mine"])
    put(tmp_path / "mine" / "copy")
    put(tmp_path / "mine")
    with pytest.raises(DataError, match=rf"{TRAIN_NAME} is there 2 times"):
        fetch(LAPTOP, tmp_path / "data", [tmp_path / "mine"])


def test_the_hash_of_a_known_copy(tmp_path: Path) -> None:
    put(tmp_path / "mine")
    first, _ = fetch(LAPTOP, tmp_path / "data", [tmp_path / "mine"])
    known = replace(LAPTOP, sha256={TRAIN_NAME: first.sha256, TEST_NAME: "0" * 64})
    assert [file.known for file in fetch(known, tmp_path / "data", [tmp_path / "mine"])] == [True, False]
    assert first.known is None


def test_mams_is_told_from_its_categories(tmp_path: Path) -> None:
    mams = replace(PUBLIC["mams"], counts={})
    for task, aspect in (("ATSA", "lid"), ("ACSA", "fine")):
        folder = tmp_path / "MAMS-for-ABSA" / "data" / f"MAMS-{task}" / "raw"
        folder.mkdir(parents=True)
        for split in ("train", "test"):
            text = xml14((f"A fine lid, {split}.", aspect, "positive"))
            (folder / f"{split}.xml").write_text(text, encoding="utf-8")
    train, _ = fetch(mams, tmp_path / "data", [tmp_path / "MAMS-for-ABSA"])
    assert 'term="lid"' in train.path.read_text(encoding="utf-8")
    assert everything(tmp_path / "data") == {"mams/train.xml", "mams/test.xml"}


def test_from_the_authors_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "site")
    (tmp_path / "site" / "train.xml").write_text(TRAIN, encoding="utf-8")
    (tmp_path / "site" / "test.xml").write_text(TEST, encoding="utf-8")
    mams = replace(PUBLIC["mams"], counts={}, web=(tmp_path / "site").as_uri() + "/")
    assert sum(fetch(mams, tmp_path / "data")[0].counts) == 2
    with pytest.raises(DataError, match=r"nowhere/train\.xml could not be had \(URLError.*--from FOLDER_OR_ZIP"):
        fetch(replace(mams, web=(tmp_path / "nowhere").as_uri() + "/"), tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.usefixtures("any_counts")
def test_from_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train = [
        {"text": "A lid on a lid.", "span": "lid", "label": "positive", "ordinal": 1},
        {"text": "A loud fan.", "span": "fan", "label": "negative", "ordinal": 0},
        {"text": "A loud fan.", "span": "loud fan", "label": "conflict", "ordinal": 0},
    ]
    test = [{"text": "A box.", "span": "box", "label": "neutral", "ordinal": 0}]
    monkeypatch.setattr(module, "download", lambda hub_id: {"train": train, "test": test})
    fetch(LAPTOP, tmp_path)
    assert everything(tmp_path) == {"hub/laptop14_train.jsonl", "hub/laptop14_test.jsonl"}
    lines = (tmp_path / "hub" / "laptop14_train.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == train
    pair = load_pair(DataSettings(name="laptop14", path=str(tmp_path)), root=tmp_path, environ={})
    assert pair[0].examples[0].start == 11
    monkeypatch.setattr(module, "download", lambda hub_id: {"train": train})
    with pytest.raises(DataError, match="has no split 'test' among train"):
        fetch(LAPTOP, tmp_path / "other")


def test_a_set_that_nobody_publishes_file_by_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absa-edit data fetch me_absc_rest --from FOLDER_OR_ZIP"):
        fetch(PUBLIC["me_absc_rest"], tmp_path)


def test_the_official_files(public_data: Path, tmp_path: Path) -> None:
    for name in ("laptop14", "restaurant14"):
        assert [file.known for file in fetch(PUBLIC[name], tmp_path, [public_data / "semeval14"])] == [True, True]
