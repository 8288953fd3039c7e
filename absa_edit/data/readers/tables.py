"""Tables with a row an aspect: JSON lines, CSV and parquet.

Two sets of columns are known: `text, span, label, ordinal` (SetFit) and `sentence, aspect, label`
(the AAAI-25 paper's files); their names may be mixed. `ordinal` counts from 0 and says which
occurrence of the span is meant; without it the aspect's first occurrence is taken.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from absa_edit.data.assemble import Row, broken, decode, occurrences
from absa_edit.data.readers.base import reader
from absa_edit.tasks.base import Task

TEXT = ("text", "sentence")
ASPECT = ("span", "aspect")
LABEL = ("label", "polarity")

Record = tuple[str, Mapping[str, Any]]
"""Where a row stands, and its values by column."""


@reader(".jsonl", ".json", source="jsonl")
def jsonl_rows(content: bytes, path: Path, task: Task) -> Iterator[Row]:
    """The aspects of a file with one JSON object a line."""
    # Not splitlines: it also cuts at characters that JSON strings may hold as they are.
    return aligned(json_records(decode(content, path).split("\n"), path), path, task)


@reader(".csv")
def csv_rows(content: bytes, path: Path, task: Task) -> Iterator[Row]:
    """The aspects of a comma-separated file with a header."""
    return aligned(csv_records(io.StringIO(decode(content, path), newline=""), path), path, task)


@reader(".parquet")
def parquet_rows(content: bytes, path: Path, task: Task) -> Iterator[Row]:
    """The aspects of a parquet file."""
    import pandas as pd  # here, because no other format needs it

    try:
        values: list[Any] = pd.read_parquet(io.BytesIO(content)).to_dict("records")
    except Exception as error:  # broken bytes surface as whatever pandas and pyarrow trip over
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise broken(path, None, f"not a parquet file ({reason})", "Write or fetch it again") from None
    return aligned(numbered(values), path, task)


def json_records(lines: Iterable[str], origin: Path | str) -> Iterator[Record]:
    """The object on each line that is not empty. Raises `DataError` naming the line that is none."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise broken(origin, f"line {number}", f"not JSON ({error})", "Expected one JSON object a line") from None
        if not isinstance(values, dict):
            kind = type(values).__name__
            raise broken(origin, f"line {number}", f"a JSON {kind}, not an object", "Expected one JSON object a line")
        yield f"line {number}", values


def csv_records(lines: Iterable[str], origin: Path | str) -> Iterator[Record]:
    """The rows under a header, at the line where each starts. Raises `DataError` naming a row that is none."""
    reader = csv.DictReader(lines, strict=True)
    record = "line 1"
    try:
        if reader.fieldnames:
            record = f"line {reader.line_num + 1}"
        for values in reader:
            if None in values:
                raise broken(origin, record, "more fields than the header has", 'Put texts with commas in "quotes"')
            yield record, values
            record = f"line {reader.line_num + 1}"
    except csv.Error as error:
        raise broken(origin, record, f"not CSV ({error})", 'Put texts in "quotes", doubled inside') from None


def numbered(values: Iterable[Mapping[str, Any]]) -> Iterator[Record]:
    """The rows with the place `row <n>`, from 1."""
    return ((f"row {number}", row) for number, row in enumerate(values, 1))


def aligned(records: Iterable[Record], origin: Path | str, task: Task, *, labelled: bool = True) -> Iterator[Row]:
    """A row for each record, its aspect, if the task asks about one, found in the text.

    Where they are not `labelled` the label is empty.

    Rows without an ordinal whose aspect is in the text more than once carry the note
    `several_occurrences`. Raises `DataError` naming the record.
    """
    for record, values in records:
        text = _value(values, TEXT, record, origin)
        aspect = _value(values, ASPECT, record, origin) if task.asks_aspect else ""
        label = _label(values, record, origin, task) if labelled else ""
        if not task.asks_aspect:
            yield Row(record, text, 0, 0, label)
            continue
        ordinal = _ordinal(values.get("ordinal"), record, origin)
        if ordinal is None:
            spans = occurrences(text, aspect)
            if not spans:
                raise broken(
                    origin,
                    record,
                    f"the aspect {aspect!r} is not in the sentence {text!r}",
                    "Write the aspect as the sentence has it",
                )
            note = "several_occurrences" if len(spans) > 1 else None
            yield Row(record, text, *spans[0], label, note=note)
        else:
            start = _nth(text, aspect, ordinal, record, origin) + len(aspect) - len(aspect.lstrip())
            yield Row(record, text, start, start + len(aspect.strip()), label)


def _nth(text: str, span: str, ordinal: int, record: str, origin: Path | str) -> int:
    """Where occurrence `ordinal` of `span` starts; as in SetFit, overlaps and parts of words count."""
    start = -1
    for _ in range(ordinal + 1):
        start = text.find(span, start + 1)
        if start < 0:
            raise broken(
                origin,
                record,
                f"ordinal {ordinal}: no such occurrence of {span!r} in {text!r}",
                "`ordinal` counts the span's occurrences from 0",
            )
    return start


def _label(values: Mapping[str, Any], record: str, origin: Path | str, task: Task) -> str:
    """The label as it is written; a number where the task has numbers for its labels."""
    name = next((n for n in LABEL if n in values), None)
    number = None if name is None else values[name]
    if isinstance(number, int) and not isinstance(number, bool) and str(number) in task.spellings:
        return str(number)
    return _value(values, LABEL, record, origin)


def _value(values: Mapping[str, Any], names: tuple[str, ...], record: str, origin: Path | str) -> str:
    name = next((n for n in names if n in values), None)
    if name is None:
        raise broken(
            origin,
            record,
            f"no column `{'` or `'.join(names)}` among {', '.join(map(str, values)) or 'none'}",
            "Expected sentence, aspect or text, span; beside them label, if there are any, and ordinal, if you like. "
            "A task about sentences needs text and label alone",
        )
    value = values[name]
    if not isinstance(value, str) or not value.strip():
        raise broken(origin, record, f"`{name}` is {value!r}", "Expected words; labels are names, not numbers")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise broken(origin, record, f"`{name}` holds half a character: {value!a}", "Write it as UTF-8")
    return value


def _ordinal(value: Any, record: str, origin: Path | str) -> int | None:
    # Tables without a value hold None, an empty string or nan, by format.
    if value is None or value == "" or value != value:
        return None
    try:
        number = float(value)  # pandas writes whole numbers as 1.0 where some are missing
        if number >= 0 and number.is_integer():
            return int(number)
    except (TypeError, ValueError):
        pass
    raise broken(origin, record, f"`ordinal` is {value!r}", "Expected a whole number from 0")
