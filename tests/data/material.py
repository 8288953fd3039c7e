"""Data files written for the tests; no sentence of it is from a public data set."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from absa_edit.data.readers.base import read
from absa_edit.records import Dataset
from absa_edit.tasks.absc import ABSC

Write = Callable[[str, str | bytes], Path]

XML = """<?xml version="1.0" encoding="UTF-8"?>
<sentences>
  <sentence id="a1"><text>The hinge is stiff &amp; the lid creaks.</text>
    <aspectTerms>
      <aspectTerm term="hinge" polarity="negative" from="4" to="9"/>
      <aspectTerm term="lid" polarity="conflict" from="25" to="28"/>
    </aspectTerms>
  </sentence>
  <sentence id="a2"><text>Nothing to say here.</text></sentence>
  <sentence id="a3"><text>Lovely lid, and it came with a manual.</text>
    <aspectTerms>
      <aspectTerm term="lid" polarity="positive" from="7" to="10"
        twin="Wobbly lid, and it came with a manual." twinFrom="7" twinPolarity="negative"/>
      <aspectTerm term="manual" polarity="neutral" from="31" to="37"/>
    </aspectTerms>
  </sentence>
</sentences>
"""


def read_one(path: Path) -> Dataset:
    """The set in `path`, under names that do not matter."""
    return read(path, name="mine", split="test", domain="thing", task=ABSC)


def xml14(*sentences: tuple[str, str, str]) -> str:
    """SemEval-2014 XML of sentences with one aspect each: text, aspect, polarity."""
    rows = [
        f'<sentence id="s{number}"><text>{text}</text><aspectTerms><aspectTerm term="{aspect}" '
        f'polarity="{polarity}" from="{text.index(aspect)}" to="{text.index(aspect) + len(aspect)}"/>'
        "</aspectTerms></sentence>"
        for number, (text, aspect, polarity) in enumerate(sentences)
    ]
    return f"<sentences>{''.join(rows)}</sentences>"


def some(word: str, count: int = 6) -> str:
    """A file of `count` different sentences about `word`."""
    polarities = ("positive", "negative", "neutral")
    return xml14(*((f"Number {n}: the {word} again.", word, polarities[n % 3]) for n in range(count)))
