"""JSON lines, CSV and parquet: the paper's columns and SetFit's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from material import Write, read_one

from absa_edit.errors import DataError

ROWS: list[dict[str, Any]] = [
    {"text": "The lid, a red lid, is fine.", "span": "lid", "label": "positive", "ordinal": 1},
    {"text": "The lid, a red lid, is fine.", "span": "lid", "label": "neutral", "ordinal": 0},
    {"text": "Bad hinge.", "span": "hinge", "label": "conflict", "ordinal": 0},
]


def lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def table(path: Path, rows: list[dict[str, Any]]) -> Path:
    frame = pd.DataFrame(rows)
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    elif path.suffix == ".parquet":
        frame.to_parquet(path)
    else:
        path.write_text(lines(rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_setfit_columns(tmp_path: Path, suffix: str) -> None:
    data = read_one(table(tmp_path / f"a.{suffix}", ROWS))
    assert [(e.start, e.label) for e in data.examples] == [(15, "positive"), (4, "neutral")]
    assert data.dropped == {"conflict": 1}
    assert data.source == suffix


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_a_missing_ordinal_is_the_first_occurrence(tmp_path: Path, suffix: str) -> None:
    rows = [{**ROWS[0], "ordinal": None}, ROWS[1]]
    data = read_one(table(tmp_path / f"a.{suffix}", rows))
    assert [e.start for e in data.examples] == [4, 4]
    assert data.dropped == {"several_occurrences": 1, "contradictions": 1}


def test_ordinals_count_parts_of_words_as_setfit_does(write: Write) -> None:
    row = {"text": "A ramp and a RAM: ram", "span": "ram", "label": "neutral", "ordinal": 1}
    assert read_one(write("a.jsonl", lines([row]))).examples[0].start == 18


def test_the_papers_columns(write: Write) -> None:
    rows = [
        {"aspect": "lid", "label": "Pos", "sentence": "a lid , a lid ."},
        {"aspect": "Hinge", "label": "Neg", "sentence": "bad\u2028hinge ."},
        {"aspect": "box", "label": "Neu", "sentence": "in a box ."},
    ]
    data = read_one(write("a.json", "\ufeff" + lines(rows) + "\n\n"))
    assert data.counts() == {"positive": 1, "negative": 1, "neutral": 1}
    assert [e.aspect for e in data.examples] == ["lid", "hinge", "box"]
    assert data.dropped == {"several_occurrences": 1}


def test_text_aspect_label(write: Write) -> None:
    row = {"text": "A lid.", "aspect": "lid", "label": "NEGATIVE"}
    assert read_one(write("a.jsonl", lines([row]))).counts()["negative"] == 1


def test_csv_with_quotes_commas_and_line_breaks(write: Write) -> None:
    text = 'text,span,label\n"A ""good"" lid,\nreally.",lid,positive\n'
    assert read_one(write("a.csv", text)).examples[0].text == 'A "good" lid,\nreally.'


GOOD = ROWS[0]


@pytest.mark.parametrize(
    ("row", "found", "fix"),
    [
        (
            {"text": "A lid.", "span": "lid"},
            "no column `label` or `polarity` among text, span",
            "Expected sentence, aspect or text, span; beside them label",
        ),
        (
            {"span": "lid", "label": "positive"},
            "no column `text` or `sentence`",
            "Expected sentence, aspect or text, span; beside them label",
        ),
        ({**GOOD, "label": "fine"}, "unknown label 'fine'", "Expected positive"),
        ({**GOOD, "text": "A lid \ud83d."}, "`text` holds half a character", "Write it as UTF-8"),
        ({**GOOD, "label": 1}, "`label` is 1", "labels are names"),
        ({**GOOD, "span": " "}, "`span` is ' '", "Expected words"),
        ({**GOOD, "text": None}, "`text` is None", "Expected words"),
        (
            {**GOOD, "ordinal": 2},
            "ordinal 2: no such occurrence of 'lid'",
            "counts the span's occurrences from 0",
        ),
        ({**GOOD, "ordinal": -1}, "`ordinal` is -1", "whole number from 0"),
        ({**GOOD, "ordinal": 0.5}, "`ordinal` is 0.5", "whole number from 0"),
        ({**GOOD, "ordinal": "one"}, "`ordinal` is 'one'", "whole number from 0"),
        (
            {"sentence": "a lid .", "aspect": "fan", "label": "Pos"},
            "the aspect 'fan' is not in the sentence",
            "Write the aspect as",
        ),
    ],
)
def test_a_broken_row_is_named(write: Write, row: dict[str, Any], found: str, fix: str) -> None:
    path = write("a.jsonl", json.dumps(GOOD) + "\n" + json.dumps(row))
    with pytest.raises(DataError) as error:
        read_one(path)
    for part in (str(path), "line 2", found, fix):
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "record", "found", "fix"),
    [
        ("a.jsonl", lines([GOOD]) + '{"text": "A l', "line 2", "not JSON", "one JSON object a line"),
        ("a.json", "[1,\n2]", "line 1", "not JSON", "one JSON object a line"),
        ("a.json", "[1]", "line 1", "a JSON list, not an object", "one JSON object a line"),
        (
            "a.jsonl",
            lines([GOOD]).encode() + b'{"text": "\xe9"}',
            "line 2",
            "byte 0xe9 is not UTF-8",
            "Save the file as UTF-8",
        ),
        ("a.jsonl", "", "", "the file is empty", "Fetch or write it again"),
        (
            "a.csv",
            "text,span\nA lid.,lid\n",
            "line 2",
            "no column `label` or `polarity`",
            "Expected sentence, aspect or text, span; beside them label",
        ),
        (
            "a.csv",
            "text,span,label\nA lid, red.,lid,positive\n",
            "line 2",
            "more fields than the header",
            '"quotes"',
        ),
        ("a.csv", 'text,span,label\n"A lid.,lid,positive\n', "line 2", "not CSV", '"quotes"'),
        ("a.csv", "text,span,label\n", "", "no aspect with a polarity", "gold labels"),
        ("a.csv", "text,span,label\nA lid.\n", "line 2", "`span` is None", "Expected words"),
        ("a.parquet", "no parquet", "", "not a parquet file", "Write or fetch it again"),
    ],
)
def test_a_broken_file_is_named(
    write: Write, name: str, content: str | bytes, record: str, found: str, fix: str
) -> None:
    path = write(name, content)
    with pytest.raises(DataError) as error:
        read_one(path)
    for part in (str(path), record, found, fix):
        assert part in str(error.value)


def test_a_broken_parquet_row_is_named(tmp_path: Path) -> None:
    path = table(tmp_path / "a.parquet", [ROWS[0], {**ROWS[1], "ordinal": 7}])
    with pytest.raises(DataError, match=r"a\.parquet, row 2: ordinal 7"):
        read_one(path)
