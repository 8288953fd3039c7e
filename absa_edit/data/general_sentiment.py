"""Sentences of no domain and a question of another form: whether a model still tells good from bad in general."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from absa_edit.data.readers.base import read
from absa_edit.records import Dataset
from absa_edit.tasks.base import Task

QUESTION = Task(
    labels=("positive", "negative"),
    template="{sentence} All in all, that was",
    asks_aspect=False,
    words=("good", "bad"),
    spellings={"1": "positive", "0": "negative"},
)
"""A text that goes on, in no words of the tasks' prompts or labels."""
BUNDLED = Path(__file__).resolve().parents[1] / "assets" / "general_sentiment.csv"
"""Written for this project: sentences about anything but what its samples are about."""
KNOWN = ("sst2", "rotten_tomatoes")
"""Public sets that are asked about, too, where a data folder has `sentiment/<name>_test.csv` (columns text, label)."""


def general_sets(folders: Iterable[Path]) -> tuple[Dataset, ...]:
    """The bundled sentences, and those of the known sets that lie in one of the folders.

    Raises `DataError` for a file that only bears the set's name.
    """
    sets = [read(BUNDLED, name="general-sample", split="test", domain="general", task=QUESTION)]
    places = list(folders)
    for name in KNOWN:
        paths = (folder / "sentiment" / f"{name}_test.csv" for folder in places)
        if path := next((path for path in paths if path.is_file()), None):
            sets.append(read(path, name=name, split="test", domain="general", task=QUESTION))
    return tuple(sets)
