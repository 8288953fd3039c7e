"""Data cards: every figure counted by hand on a set of four aspects."""

from __future__ import annotations

from dataclasses import replace

import pytest

from absa_edit.commands.data import bag_of_words
from absa_edit.data.card import between, data_card, facts, licence
from absa_edit.records import Dataset, Example
from absa_edit.tasks.absc import ABSC, Polarity


def example(number: int, text: str, aspect: str, polarity: str) -> Example:
    start = text.index(aspect)
    return Example(f"{number}", f"s{text}", text, aspect, start, start + len(aspect), Polarity(polarity), "laptop")


TRAIN = Dataset(
    "laptop14",
    "train",
    "xml",
    (
        example(0, "Great battery life, bad fan.", "battery life", "positive"),
        example(1, "Great battery life, bad fan.", "fan", "negative"),
        example(2, "A box.", "box", "neutral"),
        example(3, "The lid was fine with me", "lid", "positive"),
    ),
    {"train.xml": "a" * 64},
    ABSC.labels,
    {"conflict": 3},
)
TEST = replace(
    TRAIN, split="test", examples=(TRAIN.examples[2], example(5, "Bad zoom", "zoom", "negative")), dropped={}
)


def test_facts() -> None:
    found = facts(TRAIN)
    assert found["sentences with an aspect"] == "3"
    assert (found["positive"], found["negative"]) == ("50.0 % (2)", "25.0 % (1)")
    assert found["neutral"] == "25.0 % (1)"
    assert found["sentences with several labels"] == "33.3 % (1)"
    assert found["aspects of several words"] == "25.0 % (1)"
    assert found["words a sentence (least / median / most)"] == "2 / 5 / 6"
    assert found["rows left out or noted"] == "3 conflict"


def test_what_test_shares_with_training() -> None:
    found = between(TRAIN, TEST)
    assert found["test rows that stand in the training file too"] == "1"
    assert found["test words never seen in training"] == "1 of 4"  # zoom, of a, box, bad, zoom
    assert found["test aspects whose term is not in training"] == "50.0 % (1)"


def test_sentences_without_aspects_are_called_sentences() -> None:
    examples = tuple(replace(e, aspect="", start=0, end=0) for e in TRAIN.examples)
    train, test = replace(TRAIN, examples=examples), replace(TEST, examples=examples[:2])
    card = data_card(train, test)
    assert "aspect" not in card
    assert facts(train)["sentences"] == "4" and facts(train)["different sentences"] == "3"
    assert between(train, test)["test sentences of the largest class"] == "50.0 % (1)"


def test_the_card_names_set_and_licence() -> None:
    card = data_card(TRAIN, TEST)
    assert card.startswith("# Data card: laptop14\n")
    assert "Licence: SemEval-2014 task 4" in card
    assert licence("laptop-sample").startswith("MIT")
    assert licence("mine") == "not known"


def test_difficulty_is_measured_as_the_methods_are() -> None:
    """A label that is nowhere has an F1 of 0, as in every score of the project."""
    pytest.importorskip("sklearn")
    known = replace(TRAIN, examples=TRAIN.examples[:2])
    assert bag_of_words(known, known) == ("bag of words", "2", "100.0", "66.7")
