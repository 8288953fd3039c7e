"""The text that an edit should leave alone."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np

from absa_edit.data.neutral import neutral_text, some_paragraphs

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


def words(texts: list[str]) -> int:
    return sum(len(text.split()) for text in texts)


def test_there_are_twenty_thousand_words_that_hardly_repeat() -> None:
    lines = neutral_text()
    assert words(lines) >= 20_000
    assert len(set(lines)) == len(lines)
    sentences = [s for line in lines for s in re.split(r"(?<=[.]) ", line)]
    assert len(set(sentences)) > 0.88 * len(sentences)


def test_every_line_is_whole_sentences_without_an_opinion() -> None:
    opinions: set[str] = set()
    for line in (SCRIPTS / "opinion_words.txt").read_text().splitlines():
        if line.startswith(("positive", "negative")):
            opinions |= set(line.split(":")[1].split())
    by_hand = (SCRIPTS / "neutral" / "by_hand.txt").read_text().splitlines()
    lines = neutral_text()
    assert lines[: len(by_hand)] == by_hand
    for line in lines[len(by_hand) :]:
        assert re.fullmatch(r"[A-Z0-9][^{}|\[\]]*\.", line)
        assert not opinions & set(re.findall(r"[a-z]+", line.lower())), line
        assert not re.search(r"\ba [aeiou]|\b1 [a-z]+s\b|  ", line), line


def test_the_script_writes_what_is_bundled() -> None:
    assert not subprocess.run([sys.executable, SCRIPTS / "make_neutral.py", "--check"], timeout=60).returncode


def test_paragraphs_are_drawn_until_there_are_enough_words() -> None:
    lines = neutral_text()
    some = some_paragraphs(lines, 1000, np.random.default_rng(3))
    assert 1000 <= words(some) < 1000 + max(len(line.split()) for line in lines)
    assert some == [line for line in lines if line in set(some)], "their order is kept"
    assert some == some_paragraphs(lines, 1000, np.random.default_rng(3)) != lines[: len(some)]
    assert some_paragraphs(lines, 10**9, np.random.default_rng(0)) == lines
