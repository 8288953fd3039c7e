"""Sentence polarity and emotions on public data, from the file to the answer of the export; five classes, too."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from runs import execute, settings

import absa_edit
from absa_edit.data.settings import DataSettings, Leaks
from absa_edit.errors import ModelError
from absa_edit.localizers.settings import LocateSettings
from absa_edit.methods.low_rank_edit import Edit
from absa_edit.methods.zero_shot import ZeroShot
from absa_edit.settings import Settings, Stage
from absa_edit.tasks.base import TASKS
from absa_edit.tasks.settings import TaskSettings


@pytest.fixture(scope="session")
def sentiment(public_data: Path) -> Path:
    """The folder of the sentence-level sets; skips where there is none."""
    if not (public_data / "sentiment").is_dir():
        pytest.skip("no sentence-level sets: put sentiment/*.csv into the folder that $ABSA_EDIT_DATA names")
    return public_data / "sentiment"


def pair(sentiment: Path, name: str, tmp_path: Path) -> tuple[Path, Path]:
    """Training and test file of a set with the columns text and label; ISEAR is one file with bars, split here."""
    if name != "isear":
        return sentiment / f"{name}_train.csv", sentiment / f"{name}_test.csv"
    lines = (sentiment / "isear.csv").read_text(encoding="latin-1").splitlines()
    rows = list(csv.DictReader(lines, delimiter="|", quoting=csv.QUOTE_NONE))
    table = pd.DataFrame({"text": [r["SIT"] for r in rows], "label": [r["Field1"] for r in rows]})
    table = table[table.text.str.strip().astype(bool) & table.label.isin(TASKS["isear"].labels)]
    shuffled = table.sample(frac=1, random_state=0)
    shuffled[:2000].to_csv(tmp_path / "train.csv", index=False)
    shuffled[2000:2500].to_csv(tmp_path / "test.csv", index=False)
    return tmp_path / "train.csv", tmp_path / "test.csv"


def run_settings(tmp_path: Path, train: Path, test: Path, task: TaskSettings, **changes: object) -> Settings:
    made = {
        "name": "task",
        "task": task,
        "data": DataSettings(name="mine", train=str(train), test=str(test), limit_train=80, limit_test=40),
        "locate": LocateSettings(width=2),
        "method": {"zero_shot": ZeroShot(), "edit": Edit()},
        "stages": list(Stage),
    }
    return settings(tmp_path / "out", **made | changes)


@pytest.mark.parametrize(
    ("name", "task"), [("sst2", "sentence_polarity"), ("reduced_emotion", "emotions"), ("isear", "isear")]
)
def test_sets_of_sentences_run_from_the_file_to_the_export(
    sentiment: Path, tmp_path: Path, name: str, task: str
) -> None:
    train, test = pair(sentiment, name, tmp_path)
    run, record, _ = execute(run_settings(tmp_path, train, test, TaskSettings(task)))
    labels = TASKS[task].labels
    assert record.task == task and record.labels == labels
    assert list(record.data["train"].counts) == list(labels) and min(record.data["train"].counts.values()) > 0
    assert record.trace and {role.value for role in (record.trace.peak.role,)} <= {"sentence", "question", "last",
                                                                                   "punctuation"}  # fmt: skip
    for row in record.methods.values():
        (score,) = row.scores.values()
        assert list(score.f1) == list(labels)
        assert np.array(score.confusion).shape == (len(labels),) * 2 and np.array(score.confusion).sum() == 40
    assert record.export and record.export.agreement == 1.0
    markdown, page = ((run.folder / f"report.{kind}").read_text() for kind in ("md", "html"))
    card = (run.folder / "export" / "adapter" / "README.md").read_text()
    for label in labels:
        assert all(label in text for text in (markdown, page, card)), label
    answers = absa_edit.load(run.folder).predict(["I could not stop laughing."])
    assert list(answers[0]) == list(labels)


def test_five_classes_by_settings_alone(tmp_path: Path) -> None:
    stars = ["awful", "poor", "mixed", "good", "great"]
    for name, count in (("train", 40), ("test", 15)):
        rows = [(f"The {name} thing number {i} was {stars[i % 5]}.", i % 5 + 1) for i in range(count)]
        pd.DataFrame(rows, columns=["text", "label"]).to_csv(tmp_path / f"{name}.csv", index=False)
    five = TaskSettings("sentence_polarity", stars, {str(i + 1): star for i, star in enumerate(stars)})
    chosen = run_settings(tmp_path, tmp_path / "train.csv", tmp_path / "test.csv", five, stages=[Stage.methods],
                          method={"zero_shot": ZeroShot()})  # fmt: skip
    _, record, _ = execute(chosen)
    assert record.data["test/mine"].counts == dict.fromkeys(stars, 3)
    assert np.array(record.methods["zero_shot"].scores["mine"].confusion).shape == (5, 5)


def test_words_that_begin_alike_are_told_before_anything_runs(tmp_path: Path, caplog) -> None:
    (tmp_path / "a.csv").write_text("text,label\nA good box.,very positive\nA bad box.,very negative\n")
    alike = TaskSettings("sentence_polarity", ["very positive", "very negative"])
    files = (tmp_path / "a.csv", tmp_path / "a.csv")
    data = DataSettings(name="mine", train=str(files[0]), test=str(files[1]), leaks=Leaks.keep)
    with pytest.raises(ModelError, match="very positive and very negative begin with the same token"):
        execute(run_settings(tmp_path, *files, alike, data=data))
    chosen = run_settings(tmp_path, *files, alike, stages=[Stage.methods], method={"zero_shot": ZeroShot()}, data=data)
    _, record, _ = execute(chosen)
    assert "begin with the same token" in caplog.text and record.labels == ("very positive", "very negative")
