"""A task: its labels, the words that answer, the prompt, and what an example marks in its text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from absa_edit.data.settings import PromptSettings
from absa_edit.errors import SettingsError
from absa_edit.registry import Registry
from absa_edit.tasks.settings import TaskSettings


@dataclass(frozen=True)
class Task:
    """What is asked of a text. The order of its labels is that of every array and table.

    Raises `SettingsError` for fewer than two labels, words that cannot be told from each other by their first one, or a
    template without its places.
    """

    labels: tuple[str, ...]
    template: str
    """The prompt, with `{sentence}` once and, where aspects are asked about, `{aspect}` at least once after it."""
    asks_aspect: bool
    """Whether an example is about a span of its text, which data files must mark or name."""
    words: tuple[str, ...] = ()
    """The words that answer, in the order of the labels; none are the labels themselves."""
    spellings: Mapping[str, str] = field(default_factory=dict)
    """How data files write labels besides their names, in lower case, and the label that is meant."""
    dropped: tuple[str, ...] = ()
    """Labels in data files whose rows are left out and counted."""

    def __post_init__(self) -> None:
        if not self.words:
            object.__setattr__(self, "words", self.labels)
        for name, values in (("task.labels", self.labels), ("prompt.labels", self.words)):
            if len(set(values)) < 2 or len(set(values)) != len(values) or not all(v.strip() for v in values):
                raise SettingsError(f"{name}={list(values)}: expected two or more different words")
        if len(self.words) != len(self.labels):
            raise SettingsError(
                f"prompt.labels={list(self.words)}: expected {len(self.labels)} different words, one for each of "
                f"{', '.join(self.labels)}"
            )
        if odd := sorted(set(self.spellings.values()) - set(self.labels)):
            raise SettingsError(f"task.spellings means {odd[0]!r}, which is no label; there are {list(self.labels)}")
        self._check_template()

    def _check_template(self) -> None:
        places = "{sentence} once" + (" and {aspect} at least once" if self.asks_aspect else ", and no {aspect}")
        if self.template.count("{sentence}") != 1 or ("{aspect}" in self.template) != self.asks_aspect:
            raise SettingsError(f"prompt.template={self.template!r}: expected {places}")
        if self.asks_aspect and self.template.index("{aspect}") < self.template.index("{sentence}"):
            raise SettingsError("prompt.template: {aspect} must stand after {sentence}")

    def prompt(self, settings: PromptSettings | None = None) -> PromptSettings:
        """`settings` with this task's template and words where they have none.

        Raises `SettingsError` for a template or words that do not go with the task.
        """
        given = settings or PromptSettings()
        adjusted_task = replace(self, template=given.template or self.template, words=tuple(given.labels) or self.words)
        return replace(given, template=adjusted_task.template, labels=list(adjusted_task.words))

    def label_of(self, written: str) -> str | None:
        """The label that a data file writes so, in any case; None when it is none."""
        plain = written.strip().casefold()
        return next((label for label in self.labels if label.casefold() == plain), self.spellings.get(plain))

    def drops(self, written: str) -> bool:
        """Whether rows that a data file labels so are left out."""
        return written.strip().casefold() in {label.casefold() for label in self.dropped}

    def expected(self) -> str:
        """What data files may write, for messages."""
        names = [*self.labels, *self.dropped]
        short = f" (or {', '.join(self.spellings)})" if self.spellings else ""
        return ", ".join(names[:-1]) + f" or {names[-1]}{short}"


TASKS: Registry[Task] = Registry("task", "absa_edit.tasks")
task = TASKS
"""`ABSC = task("absc")(Task(...))` registers a task."""


def task_of(settings: TaskSettings, prompt: PromptSettings) -> Task:
    """The task that `settings` name, with what they and `prompt` change of it.

    Raises `SettingsError` for an unknown task or what makes none.
    """
    chosen_task, words = TASKS[settings.kind], tuple(prompt.labels)
    if settings.labels is not None:
        labels = tuple(settings.labels)
        known = {written: label for written, label in chosen_task.spellings.items() if label in labels}
        chosen_task = replace(chosen_task, labels=labels, words=words, spellings=known)
    if settings.spellings:
        chosen_task = replace(
            chosen_task, spellings={**chosen_task.spellings, **{k.casefold(): v for k, v in settings.spellings.items()}}
        )
    if settings.dropped is not None:
        chosen_task = replace(chosen_task, dropped=tuple(settings.dropped))
    return replace(chosen_task, template=prompt.template or chosen_task.template, words=words or chosen_task.words)
