"""One way to read a data file of any known format."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

from absa_edit.data.assemble import Row, Skipped, assemble, broken, read_bytes
from absa_edit.data.readers import semeval_xml, tables, triples
from absa_edit.records import Dataset

READERS: dict[str, tuple[str, Callable[[bytes, Path], Iterator[Row | Skipped] | Iterator[Row]]]] = {
    ".xml": ("xml", semeval_xml.rows),
    ".json": ("jsonl", tables.jsonl_rows),
    ".jsonl": ("jsonl", tables.jsonl_rows),
    ".csv": ("csv", tables.csv_rows),
    ".parquet": ("parquet", tables.parquet_rows),
    ".seg": ("seg", triples.rows),
}
"""By suffix: what the set's `source` says, and the reader."""


def read(path: Path, *, name: str, split: str, domain: str) -> Dataset:
    """The examples of the file at `path`, read by its suffix.

    Raises `DataError` naming the file, the record and the fix for anything that cannot be read.
    """
    suffix = path.suffix.lower()
    if suffix not in READERS:
        raise broken(path, None, f"unknown suffix {suffix!r}", f"Known are {', '.join(READERS)}; convert or rename it")
    source, rows = READERS[suffix]
    content = read_bytes(path)
    return assemble(
        rows(content, path),
        path,
        name=name,
        split=split,
        domain=domain,
        source=source,
        sha256={path.name: hashlib.sha256(content).hexdigest()},
    )
