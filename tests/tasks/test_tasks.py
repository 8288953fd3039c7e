"""What a task may be, and what each makes of labels, words and prompts."""

from __future__ import annotations

import pytest
from transformers import PreTrainedTokenizerBase

from absa_edit.data.prompts import encode, label_ids, roles_of
from absa_edit.data.settings import PromptSettings
from absa_edit.errors import SettingsError
from absa_edit.records import Example, Role
from absa_edit.tasks.absc import ABSC, POLARITIES
from absa_edit.tasks.base import TASKS, Task, task_of
from absa_edit.tasks.settings import TaskSettings


def test_the_shipped_ones() -> None:
    assert set(TASKS) == {"absc", "sentence_polarity", "emotions", "isear"}
    assert ABSC.labels == tuple(POLARITIES) == ("positive", "negative", "neutral")
    assert len(TASKS["emotions"].labels) == 6 and len(TASKS["isear"].labels) == 7
    for name in TASKS:
        assert ("{aspect}" in TASKS[name].template) == TASKS[name].asks_aspect == (name == "absc")


def test_labels_as_files_write_them() -> None:
    assert [ABSC.label_of(w) for w in ("Positive", " neg ", "NEU", "fine")] == ["positive", "negative", "neutral", None]
    assert ABSC.drops("Conflict") and not ABSC.drops("neutral")
    assert TASKS["emotions"].label_of("4") == "fear" and TASKS["sentence_polarity"].label_of("0") == "negative"
    assert ABSC.expected() == "positive, negative, neutral or conflict (or pos, neg, neu)"


def test_settings_change_labels_spellings_and_what_is_dropped() -> None:
    stars = ["awful", "poor", "mixed", "good", "great"]
    five = task_of(TaskSettings("sentence_polarity", stars, {"5": "great"}, ["none"]), PromptSettings())
    assert five.labels == five.words == tuple(stars) and five.label_of("5") == "great" and five.drops("None")
    assert five.label_of("1") is None, "it meant positive, which is no label any more"
    kept = task_of(TaskSettings(dropped=[]), PromptSettings(labels=["good", "bad", "okay"]))
    assert not kept.drops("conflict") and kept.words == ("good", "bad", "okay") and kept.labels == ABSC.labels
    assert kept.prompt().labels == ["good", "bad", "okay"] and kept.prompt().template == ABSC.template


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"labels": ("one",)}, r"task\.labels=\['one'\]: expected two or more"),
        ({"labels": ("a", "b", "a")}, "expected two or more different words"),
        ({"words": ("yes",)}, "prompt.labels"),
        ({"words": ("yes", "no", "maybe")}, "expected 2 different words, one for each of a, b"),
        ({"template": "no place"}, "{sentence} once, and no {aspect}"),
        ({"template": "{sentence} {aspect}"}, "{sentence} once, and no {aspect}"),
        ({"asks_aspect": True}, "{aspect} at least once"),
        ({"spellings": {"1": "c"}}, "task.spellings means 'c', which is no label"),
    ],
)
def test_what_makes_no_task(changes: dict, said: str) -> None:
    plain = {"labels": ("a", "b"), "template": "{sentence} is", "asks_aspect": False}
    with pytest.raises(SettingsError, match=said.replace("{", r"\{").replace("}", r"\}")):
        Task(**plain | changes)


def test_a_prompt_about_a_sentence(tokenizer: PreTrainedTokenizerBase) -> None:
    task = TASKS["sentence_polarity"]
    example = Example("1", "1", "The fan is loud, and hot.", "", 0, 0, "negative", "")
    (prompt,) = encode([example], tokenizer, task.prompt())
    assert set(prompt.roles) == {Role.instruction, Role.sentence, Role.punctuation, Role.question, Role.last}
    inside = prompt.positions(Role.sentence, Role.punctuation)
    # the last token holds the sentence's full stop and what the prompt puts after it
    assert tokenizer.decode([prompt.ids[i] for i in inside]).strip() == f"{example.text}',"
    assert roles_of([prompt]) == (Role.sentence, Role.punctuation, Role.question, Role.last)
    labels = label_ids(tokenizer, task.prompt(), task.labels)
    assert tuple(labels) == task.labels and all(labels.values())
