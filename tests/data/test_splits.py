"""Development split, limits and leaks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from material import Write, read_one, some, xml14

from absa_edit.data.settings import Leaks
from absa_edit.data.splits import limit, split_dev, without_leaks
from absa_edit.errors import DataError
from absa_edit.records import Dataset


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def texts(data: Dataset) -> set[str]:
    return {e.text.casefold() for e in data.examples}


def words(data: Dataset) -> list[str]:
    return [e.aspect for e in data.examples]


@pytest.fixture
def pairs(write: Write) -> Dataset:
    """Twenty sentences, each written twice, once in capitals."""
    rows = []
    for n in range(20):
        text = f"Number {n}: a lid."
        rows += [(text, "lid", "positive"), (text.upper(), "LID", "neutral")]
    return read_one(write("pairs.xml", xml14(*rows)))


@pytest.mark.parametrize("seed", range(5))
def test_equal_texts_stay_together(pairs: Dataset, seed: int) -> None:
    train, dev = split_dev(pairs, 0.1, rng(seed))
    assert (len(train), len(dev)) == (36, 4)
    assert not texts(train) & texts(dev)
    assert dev.split == "dev"


def test_the_split_depends_on_the_generator_only(pairs: Dataset) -> None:
    assert split_dev(pairs, 0.3, rng(1)) == split_dev(pairs, 0.3, rng(1))
    assert split_dev(pairs, 0.3, rng(1)) != split_dev(pairs, 0.3, rng(2))


def test_both_sides_of_a_tiny_split_have_a_sentence(write: Write) -> None:
    train, dev = split_dev(read_one(write("a.xml", some("lid", 2))), 0.01, rng())
    assert (len(train), len(dev)) == (1, 1)


def test_one_sentence_cannot_be_split(write: Write) -> None:
    data = read_one(write("a.xml", some("lid", 1)))
    with pytest.raises(DataError, match=r"mine \(a\.xml\): one sentence .* Give more data"):
        split_dev(data, 0.1, rng())


def test_limit_keeps_whole_sentences_in_order(pairs: Dataset) -> None:
    few = limit(pairs, 7, rng())
    assert len(few) == 6
    assert few.dropped["over_limit"] == 34
    assert len(texts(few)) == 3
    order = [pairs.examples.index(e) for e in few.examples]
    assert order == sorted(order)
    assert limit(pairs, 7, rng()) == few
    assert texts(few) <= texts(limit(pairs, 11, rng()))


def test_no_limit_changes_nothing(pairs: Dataset) -> None:
    assert limit(pairs, None, rng()) is pairs
    assert limit(pairs, 40, rng()) is pairs


def test_a_limit_below_every_sentence_is_an_error(pairs: Dataset) -> None:
    with pytest.raises(DataError, match="no whole sentence has 1 aspects or fewer"):
        limit(pairs, 1, rng())


@pytest.fixture
def leaky(write: Write) -> tuple[Dataset, Dataset]:
    """A training set, and a test set of which two rows of four are in it."""
    train = (("A lid and a fan.", "lid", "positive"), ("Good tea.", "tea", "positive"))
    test = (
        ("a  LID and a FAN.", "LID", "negative"),
        ("A lid and a fan.", "fan", "positive"),
        ("Good tea.", "tea", "positive"),
        ("Good cup.", "cup", "positive"),
    )
    return read_one(write("train.xml", xml14(*train))), read_one(write("test.xml", xml14(*test)))


def test_leaks_are_dropped(leaky: tuple[Dataset, Dataset]) -> None:
    train, test = leaky
    clean = without_leaks(test, train, Leaks.drop)
    assert words(clean) == ["fan", "cup"]
    assert clean.dropped == {"leaked": 2}


def test_leaks_are_kept_and_counted(leaky: tuple[Dataset, Dataset]) -> None:
    train, test = leaky
    kept = without_leaks(test, train, Leaks.keep)
    assert len(kept) == 4
    assert kept.dropped == {"leaked": 2}
    assert [e.aspect for e in kept.examples if e.id not in kept.leaked] == ["fan", "cup"]


def test_leaks_are_an_error(leaky: tuple[Dataset, Dataset]) -> None:
    train, test = leaky
    with pytest.raises(DataError) as error:
        without_leaks(test, train, Leaks.error)
    assert str(error.value) == (
        "test.xml (mine): 2 of 4 test rows are in the training file train.xml, s0:3-6 ('LID') the first. "
        "Set data.leaks=drop to leave them out, or data.leaks=keep to score them."
    )


def test_nothing_but_leaks_is_an_error(leaky: tuple[Dataset, Dataset]) -> None:
    train, _ = leaky
    with pytest.raises(DataError, match=r"none is left\. Give another test file, or set data\.leaks=keep"):
        without_leaks(train, train, Leaks.drop)


def test_no_leaks_change_nothing(leaky: tuple[Dataset, Dataset], write: Write) -> None:
    other = read_one(write("other.xml", some("lid")))
    assert without_leaks(other, leaky[0], Leaks.error) is other


def test_the_papers_restaurant_test_is_in_its_training_file(public_data: Path) -> None:
    train, test = (read_one(public_data / "me_absc" / f"rest_{split}.json") for split in ("train", "test"))
    clean = without_leaks(test, train, Leaks.drop)
    assert (len(test), clean.dropped["leaked"], len(clean)) == (2252, 532, 1720)
