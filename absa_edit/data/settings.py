"""What data a run stands on, and how an example becomes text."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from omegaconf import MISSING

from absa_edit.errors import SettingsError


class Leaks(StrEnum):
    """What to do with test rows whose (sentence, aspect) is in the training file."""

    drop = "drop"
    keep = "keep"
    error = "error"


@dataclass
class DataSettings:
    """Which data to train and test on."""

    name: str = MISSING
    """A public set (laptop14, restaurant14, mams, me_absc_device, ...), a bundled `<domain>-sample`, or
    any name of your own together with `train` and `test`."""
    path: str | None = None
    """Folder with the public files; else $ABSA_EDIT_DATA, `data/`, the hub, in this order."""
    train: str | None = None
    """Your own training file (.xml, .json, .jsonl, .csv, .parquet, .seg); with it `name` is only a name."""
    test: str | None = None
    """Your own test file."""
    domain: str | None = None
    """Word for the kind of product, for your own files."""
    tests: list[str] = field(default_factory=list)
    """Sets to score besides the own test split; those that cannot be found are left out and named."""
    strict: bool = False
    """Stop, rather than use the bundled sample, when `name` is nowhere to be found."""
    leaks: Leaks = Leaks.drop
    """Kept leaks are scored with the rest; the score without them is told beside."""
    dev_share: float = 0.1
    """Share of training sentences held out for early stopping, 0 to 0.5."""
    split_seed: int = 0
    """Draws the development sentences and the limits; apart from `seed`, so that seeds share their data."""
    limit_train: int | None = None
    """Use at most this many training examples (whole sentences, seeded); None uses all."""
    limit_test: int | None = None
    """Use at most this many test examples a set."""

    def __post_init__(self) -> None:
        if not 0 < self.dev_share <= 0.5:
            raise SettingsError(f"data.dev_share={self.dev_share}: expected a share in (0, 0.5]")
        if bool(self.train) != bool(self.test):
            raise SettingsError("data.train and data.test go together: give both files or neither")


@dataclass
class PromptSettings:
    """How an example becomes text, and which words answer it."""

    template: str = ""
    """With `{sentence}` once and, of a task about aspects, `{aspect}` at least once after it; empty is the task's."""
    labels: list[str] = field(default_factory=list)
    """The words that answer, in the order of the task's labels; empty are the task's."""
    separator: str = " "
    """Between prompt and label word; a space makes each label one token in most vocabularies."""
    chat: bool = False
    """Wrap the prompt as a user turn in the tokenizer's chat template."""
    max_tokens: int = 512
    """A prompt longer than this is an error."""
    shots: int = 0
    """Answered training examples before each prompt, as many of each label as can be, drawn by `seed`; 0 is none."""
    preamble: str = ""
    """Text before each prompt; a run with `shots` puts them here. Give one of the two."""

    def __post_init__(self) -> None:
        if self.shots < 0:
            raise SettingsError(f"prompt.shots={self.shots}: expected 0 or more")
