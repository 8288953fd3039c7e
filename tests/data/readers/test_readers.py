"""Dispatch by suffix, and the official counts of the real files."""

from __future__ import annotations

from pathlib import Path

import pytest
from material import XML, Write, read_one

from absa_edit.errors import DataError


def test_the_suffix_may_be_in_capitals(write: Write) -> None:
    assert len(read_one(write("A.XML", XML))) == 3


def test_reading_twice_gives_the_same_set(write: Write) -> None:
    path = write("a.xml", XML)
    assert read_one(path) == read_one(path)


@pytest.mark.parametrize(
    ("name", "found"),
    [("none.xml", "no such file. Check the path"), ("a.txt", "unknown suffix '.txt'. Known are .jsonl, .json")],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, found: str) -> None:
    with pytest.raises(DataError) as error:
        read_one(tmp_path / name)
    assert str(error.value).startswith(f"{tmp_path / name}: {found}")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "a.xml").mkdir()
    with pytest.raises(DataError, match="no such file"):
        read_one(tmp_path / "a.xml")


@pytest.mark.parametrize(
    ("file", "counts", "conflict"),
    [
        ("Laptops_Train_v2.xml", (987, 866, 460), 45),
        ("Laptops_Test_Gold.xml", (341, 128, 169), 16),
        ("Restaurants_Train_v2.xml", (2164, 805, 633), 91),
        ("Restaurants_Test_Gold.xml", (728, 196, 196), 14),
    ],
)
def test_official_counts(public_data: Path, file: str, counts: tuple[int, int, int], conflict: int) -> None:
    data = read_one(public_data / "semeval14" / file)
    assert tuple(data.counts().values()) == counts
    assert data.dropped["conflict"] == conflict
    assert "realigned" not in data.dropped
    assert len({e.id for e in data.examples}) == len(data)


@pytest.mark.parametrize(
    ("file", "counts"),
    [
        ("device_train", (896, 498, 0)),
        ("device_test", (476, 215, 0)),
        ("laptop_train", (984, 859, 454)),
        ("laptop_test", (338, 129, 164)),
        ("rest_train", (2590, 1034, 663)),
        ("rest_test", (1498, 495, 259)),
        ("service_train", (1031, 697, 112)),
        ("service_test", (505, 320, 61)),
    ],
)
def test_every_row_of_the_papers_files_reads(public_data: Path, file: str, counts: tuple[int, int, int]) -> None:
    data = read_one(public_data / "me_absc" / f"{file}.json")
    assert tuple(data.counts().values()) == counts
    assert all(e.text[e.start : e.end] == e.aspect for e in data.examples)
    assert len({e.id for e in data.examples}) == len(data)
