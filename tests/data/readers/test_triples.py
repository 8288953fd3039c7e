"""`.seg` triples."""

from __future__ import annotations

import pytest
from material import Write, read_one

from absa_edit.errors import DataError

SEG = "the $T$ is slow but fine\nold pump\n-1\nthe old pump is slow but $T$\nfine\n1\n$T$ arrived\nBox\n0\n"


def test_reads_triples(write: Write) -> None:
    data = read_one(write("a.xml.seg", SEG.replace("\n", "\r\n")))
    assert [(e.text, e.aspect, e.start) for e in data.examples] == [
        ("the old pump is slow but fine", "old pump", 4),
        ("the old pump is slow but fine", "fine", 25),
        ("Box arrived", "Box", 0),
    ]
    assert data.counts() == {"positive": 1, "negative": 1, "neutral": 1}
    assert data.examples[0].sentence_id == data.examples[1].sentence_id
    assert data.source == "seg"


@pytest.mark.parametrize(
    ("content", "record", "found", "fix"),
    [
        (SEG + "the $T$ is new\n", "line 10", "10 lines do not make triples", "takes three lines"),
        (SEG.replace("but $T$", "but"), "line 4", "0 times $T$", "Put $T$ once"),
        (SEG.replace("Box\n", " \n"), "line 8", "the aspect is empty", "Write the words"),
        (SEG.replace("-1", "-2"), "line 3", "unknown label '-2'", "in .seg 1, -1, 0"),
        (SEG.encode("utf-16"), "line 1", "not UTF-8", "Save the file as UTF-8"),
        ("  \n", "", "the file is empty", "Fetch or write it again"),
    ],
)
def test_a_broken_file_is_named(write: Write, content: str | bytes, record: str, found: str, fix: str) -> None:
    path = write("a.seg", content)
    with pytest.raises(DataError) as error:
        read_one(path)
    for part in (str(path), record, found, fix):
        assert part in str(error.value)
