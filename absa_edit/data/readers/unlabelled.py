"""Sentences with aspects to answer, streamed from JSON lines, CSV or SemEval XML; no labels needed, none read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from io import BufferedIOBase
from typing import Any
from xml.etree import ElementTree

from absa_edit.data.assemble import broken, occurrences, squash
from absa_edit.data.readers.tables import aligned, csv_records, json_records
from absa_edit.errors import DataError
from absa_edit.records import Example
from absa_edit.tasks.absc import ABSC
from absa_edit.tasks.base import Task

KINDS = ("jsonl", "csv", "xml")
ASPECTS = {"aspectTerm": "term", "Opinion": "target"}
"""Elements of SemEval XML that name an aspect, and their attribute with its words."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One question: the row as it was read, and the example that is asked; its polarity means nothing."""

    row: Mapping[str, Any]
    example: Example


def pairs(file: BufferedIOBase, kind: str, origin: str, task: Task = ABSC) -> Iterator[Pair]:
    """The pairs of a file of a `kind` (jsonl, csv or xml), one after the other.

    Raises `DataError` naming the row for anything that cannot be asked about.
    """
    if kind not in KINDS:
        raise DataError(f"{origin}: cannot read {kind!r}; expected one of {', '.join(KINDS)}")
    if kind == "xml":
        if not task.asks_aspect:
            raise DataError(f"{origin}: XML is of aspects, this model is asked about sentences; give JSON lines or CSV")
        yield from _xml_pairs(file, origin)
        return
    rows = json_records if kind == "jsonl" else csv_records
    for where, values in rows(_lines(file, origin), origin):
        (aligned_row,) = aligned([(where, values)], origin, task, labelled=False)
        yield Pair(values, _example(where, aligned_row.text, aligned_row.start, aligned_row.end))


def _example(where: str, text: str, start: int, end: int) -> Example:
    return Example(where, where, text, text[start:end], start, end, "", "")


def _lines(file: Iterable[bytes], origin: str) -> Iterator[str]:
    for number, line in enumerate(file, 1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise broken(origin, f"line {number}", f"not UTF-8 ({error.reason})", "Save the file as UTF-8") from None


def _xml_pairs(file: BufferedIOBase, origin: str) -> Iterator[Pair]:
    try:
        for _, sentence in ElementTree.iterparse(file):
            if sentence.tag != "sentence":
                continue
            text = sentence.findtext("text") or ""
            for element in sentence.iter():
                name = ASPECTS.get(element.tag)
                if name and element.get(name) != "NULL":
                    where = f"sentence {sentence.get('id')}"
                    start, end = _span(element, name, text, where, origin)
                    row = {"id": sentence.get("id"), "sentence": text, "aspect": text[start:end]}
                    yield Pair({**row, "from": start, "to": end}, _example(where, text, start, end))
            sentence.clear()
    except (ElementTree.ParseError, LookupError, ValueError) as error:  # these two: of its encoding
        raise broken(origin, None, f"not well-formed XML ({error})", "The file may be cut short") from None


def _span(element: ElementTree.Element, name: str, text: str, where: str, origin: str) -> tuple[int, int]:
    """Where the aspect stands: at `from` and `to` where it has them, else at its first occurrence."""
    term = element.get(name) or ""
    try:
        start, end = int(element.get("from", "")), int(element.get("to", ""))
        marked_text = text[start:end] if 0 <= start < end else ""
        if marked_text.strip() and squash(marked_text) == squash(term):
            start += len(marked_text) - len(marked_text.lstrip())
            return start, start + len(marked_text.strip())
    except ValueError:
        if spans := occurrences(text, term) if term.strip() else []:
            return spans[0]
    raise broken(
        origin,
        where,
        f"the aspect {term!r} is not in {text!r} where `from` and `to` say",
        "Correct `from` and `to`, or leave them out and write the aspect as the sentence has it",
    )
