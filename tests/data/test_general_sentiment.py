"""Sentences of no domain: where they come from, and that the task's words are not in their question."""

from __future__ import annotations

from pathlib import Path

import pytest

from absa_edit.data.general_sentiment import QUESTION, general_sets
from absa_edit.errors import DataError
from absa_edit.tasks.base import TASKS


def test_the_bundled_sentences_are_balanced_and_none_comes_twice() -> None:
    (bundled,) = general_sets([])
    counts = bundled.counts()
    assert counts["positive"] == counts["negative"] >= 50
    texts = [e.text for e in bundled.examples]
    assert len(set(texts)) == len(texts) and not bundled.dropped
    answers = {"good", "bad", "positive", "negative", "neutral"}
    assert not [text for text in texts if answers & set(text.lower().rstrip(".").split())]


def test_public_sets_are_asked_about_where_a_folder_has_them(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder, text in ((first, "A fine film."), (second, "Another.")):
        (folder / "sentiment").mkdir(parents=True)
        (folder / "sentiment" / "sst2_test.csv").write_text(f"text,label\n{text},1\n")
    sets = general_sets([tmp_path / "none", first, second])
    assert [(data.name, [e.text for e in data.examples]) for data in sets[1:]] == [("sst2", ["A fine film."])]
    assert sets[1].examples[0].label == "positive"
    (first / "sentiment" / "sst2_test.csv").write_text("text,label\nA fine film.,7\n")
    with pytest.raises(DataError, match=r"sst2_test\.csv"):
        general_sets([first])


def test_the_question_has_another_form_than_the_tasks() -> None:
    for name in ("absc", "sentence_polarity"):
        task = TASKS[name]
        assert not set(QUESTION.words) & set(task.words)
        assert not set(QUESTION.template.split()) & set(task.template.split())
