"""Which task a run is about, and what of it is changed."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class TaskSettings:
    """What is asked of a text."""

    kind: str = "absc"
    """A registered task: absc, sentence_polarity, emotions, or one of your own."""
    labels: list[str] | None = None
    """Other labels than the task's own, in the order of every table; the words that answer are then these, unless
    `prompt.labels` says others."""
    spellings: dict[str, str] = field(default_factory=dict)
    """Further ways in which data files write labels: `{"1": positive, "0": negative}`."""
    dropped: list[str] | None = None
    """Labels in data files whose rows are left out and counted; None is the task's own choice."""
