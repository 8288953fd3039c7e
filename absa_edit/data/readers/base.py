"""One way to read a data file of any known format, in training and elsewhere; each format is a function in a file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from absa_edit.data.assemble import Row, Skipped, assemble, broken, read_bytes
from absa_edit.records import Dataset
from absa_edit.registry import Registry
from absa_edit.tasks.base import Task

Rows = Callable[[bytes, Path, Task], Iterator[Row | Skipped]]
"""The rows in the content of a file, which the path is for messages of; `DataError` for what is not as it should be."""


@dataclass(frozen=True)
class Reader:
    """How files with one suffix are read."""

    source: str
    """What the set's record says it was read from."""
    rows: Rows


READERS: Registry[Reader] = Registry("data format", "absa_edit.data.readers")


def reader(*suffixes: str, source: str | None = None) -> Callable[[Rows], Rows]:
    """A decorator for the function that reads files with these suffixes: `@reader(".csv")`."""

    def register(rows: Rows) -> Rows:
        for suffix in suffixes:
            READERS(suffix)(Reader(source or suffix.removeprefix("."), rows))
        return rows

    return register


def read(path: Path, *, name: str, split: str, domain: str, task: Task) -> Dataset:
    """The examples of the file at `path`, read by its suffix.

    Raises `DataError` naming the file, the record and the fix for anything that cannot be read.
    """
    suffix = path.suffix.lower()
    if suffix not in READERS:
        raise broken(path, None, f"unknown suffix {suffix!r}", f"Known are {', '.join(READERS)}; convert or rename it")
    content = read_bytes(path)
    return assemble(
        READERS[suffix].rows(content, path, task),
        path,
        name=name,
        split=split,
        domain=domain,
        source=READERS[suffix].source,
        sha256={path.name: hashlib.sha256(content).hexdigest()},
        task=task,
    )
