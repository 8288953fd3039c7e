"""`.seg` files (ABSA-PyTorch, PyABSA): sentence with `$T$`, aspect, polarity 1, 0 or -1, a line each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from absa_edit.data.assemble import Row, broken, decode
from absa_edit.data.readers.base import reader
from absa_edit.tasks.base import Task

MARK = "$T$"
LABELS = {"1": "positive", "0": "neutral", "-1": "negative"}


@reader(".seg")
def rows(content: bytes, path: Path, task: Task) -> Iterator[Row]:
    """The aspects of the file in its order. Raises `DataError` naming the line."""
    if not task.asks_aspect:
        raise broken(
            path,
            None,
            "this format is of aspects, and the task asks about sentences",
            "Give a table with text and label",
        )
    lines = [line.rstrip("\r") for line in decode(content, path).rstrip().split("\n")]
    if len(lines) % 3:
        raise broken(
            path,
            f"line {len(lines)}",
            f"{len(lines)} lines do not make triples",
            f"Every aspect takes three lines: sentence with {MARK}, aspect, and 1, 0 or -1",
        )
    for at in range(0, len(lines), 3):
        frame, aspect, label = lines[at], lines[at + 1].strip(), lines[at + 2].strip()
        record = f"line {at + 1}"
        if frame.count(MARK) != 1:
            raise broken(
                path,
                record,
                f"{frame.count(MARK)} times {MARK} in the sentence",
                f"Put {MARK} once, where the aspect stands",
            )
        if not aspect:
            raise broken(path, f"line {at + 2}", "the aspect is empty", f"Write the words that {MARK} is for")
        if label not in LABELS and task.label_of(label) is None:
            raise broken(
                path, f"line {at + 3}", f"unknown label {label!r}", f"Expected {task.expected()}; in .seg 1, -1, 0"
            )
        start = frame.index(MARK)
        text = frame.replace(MARK, aspect)
        yield Row(f"line {at + 3}", text, start, start + len(aspect), LABELS.get(label, label))
