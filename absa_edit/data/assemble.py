"""What every reader yields, and how its rows become a `Dataset`: labels, alignment, ids, counts."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from absa_edit.errors import DataError
from absa_edit.records import Dataset, Example, Twin
from absa_edit.storage import content_hash
from absa_edit.tasks.base import Task


@dataclass(frozen=True, slots=True)
class Row:
    """One aspect as a reader found it: already aligned, its label not yet read."""

    record: str
    """Where it is in the file, for error messages: `line 3`, `sentence 2339`."""
    text: str
    start: int
    end: int
    label: str
    sentence_id: str | None = None
    """None where the format has none; the text's hash takes its place."""
    twin: Twin | None = None
    note: str | None = None
    """Reason that the row is counted under although it is kept."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A row that is no example of a known kind, counted under its reason."""

    reason: str


def broken(origin: Path | str, record: str | None, problem: str, fix: str) -> DataError:
    """The error for `record` of the file or hub set `origin`; `problem` and `fix` end without a stop."""
    where = f"{origin}, {record}" if record else str(origin)
    return DataError(f"{where}: {problem}. {fix}.")


def read_bytes(path: Path) -> bytes:
    """The content of `path`. Raises `DataError` when there is no such file or it is empty."""
    if not path.is_file():
        raise broken(path, None, "no such file", "Check the path, or the folder that data.path names")
    content = path.read_bytes()
    if not content.strip():
        raise broken(path, None, "the file is empty", "Fetch or write it again")
    return content


def decode(content: bytes, path: Path) -> str:
    """`content` as text without a byte order mark. Raises `DataError` when it is not UTF-8."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise broken(
            path, f"line {line}", f"byte 0x{content[error.start]:02x} is not UTF-8", "Save the file as UTF-8"
        ) from None


def squash(text: str) -> str:
    """`text` for comparison: case folded, every run of white space one space, none at the ends."""
    return " ".join(text.casefold().split())


def occurrences(text: str, aspect: str) -> list[tuple[int, int]]:
    """Where `aspect` is in `text`, as character spans from left to right.

    Whole words as written win over parts of words, and these over other case or spacing; spans of
    one kind only are returned, so that "res" is the word and not a part of "screen".
    """
    literal = re.escape(aspect.strip())
    loose = r"\s+".join(map(re.escape, aspect.split()))
    whole_word = r"(?<!\w){}(?!\w)"
    for pattern, flags in (
        (whole_word.format(literal), re.NOFLAG),
        (literal, re.NOFLAG),
        (whole_word.format(loose), re.IGNORECASE),
        (loose, re.IGNORECASE),
    ):
        if spans := [match.span() for match in re.finditer(pattern, text, flags)]:
            return spans
    return []


def assemble(
    rows: Iterable[Row | Skipped],
    origin: Path | str,
    *,
    name: str,
    split: str,
    domain: str,
    source: str,
    sha256: dict[str, str],
    task: Task,
) -> Dataset:
    """The set that `rows` make, in their order.

    Rows with a label that the task drops are left out and counted. Kept and counted are rows at an earlier one's text
    and span: `duplicates` with its label, `contradictions` with another, of which one cannot be answered right. Raises
    `DataError` for an unknown label and for a file without a single usable row.
    """
    examples: list[Example] = []
    dropped: Counter[str] = Counter()
    identities = _Identities()
    for row in rows:
        if isinstance(row, Skipped):
            dropped[row.reason] += 1
            continue
        if task.drops(row.label):
            dropped[row.label.strip().casefold()] += 1
            continue
        label = task.label_of(row.label)
        if label is None:
            raise broken(
                origin,
                row.record,
                f"unknown label {row.label!r}",
                f"Expected {task.expected()}; other spellings by task.spellings, rows to leave out by task.dropped",
            )
        if row.note:
            dropped[row.note] += 1
        example = Example(
            *identities.of(row),
            text=row.text,
            aspect=row.text[row.start : row.end],
            start=row.start,
            end=row.end,
            label=label,
            domain=domain,
            twin=row.twin and _labelled(row.twin, row, origin, task),
        )
        if earlier := identities.earlier(example):
            dropped["duplicates" if label in earlier else "contradictions"] += 1
        examples.append(example)
    if not examples:
        what = "aspect with a polarity" if task.asks_aspect else "text with a label"
        left_out = f" ({dropped.total()} left out: {', '.join(sorted(+dropped))})" if +dropped else ""
        raise broken(origin, None, f"no {what}{left_out}", "Give a file with gold labels")
    return Dataset(name, split, source, tuple(examples), sha256, task.labels, dict(+dropped))


def _labelled(twin: Twin, row: Row, origin: Path | str, task: Task) -> Twin:
    """The twin with its label read."""
    label = task.label_of(twin.label)
    if label is None:
        raise broken(origin, row.record, f"unknown twinPolarity {twin.label!r}", f"Expected {task.expected()}")
    return replace(twin, label=label)


class _Identities:
    """The ids given so far in one file; they depend on nothing but the file."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}
        self._stems: Counter[str] = Counter()
        self._seen: dict[tuple[str, int, int], frozenset[str]] = {}

    def of(self, row: Row) -> tuple[str, str]:
        """The example id and the sentence id of `row`."""
        sentence_id = row.sentence_id or content_hash(row.text)
        # Two sentences under one id would count as one wherever sentences are resampled.
        if self._texts.setdefault(sentence_id, row.text) != row.text:
            sentence_id = f"{sentence_id}-{content_hash(row.text)}"
        stem = f"{sentence_id}:{row.start}-{row.end}"
        self._stems[stem] += 1
        again = self._stems[stem]
        return (stem if again == 1 else f"{stem}#{again}"), sentence_id

    def earlier(self, example: Example) -> frozenset[str]:
        """The labels that earlier examples had at the same text and span."""
        key = (example.text, example.start, example.end)
        known = self._seen.get(key, frozenset())
        self._seen[key] = known | {example.label}
        return known
