"""The bundled sample: offsets, counts, twins, no leak, and that the generator still writes it."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import pytest
from tokenizers import Tokenizer

from absa_edit.data.settings import DataSettings
from absa_edit.data.sources import load_splits

ROOT = Path(__file__).resolve().parents[2]
ASSETS = ROOT / "absa_edit" / "assets"
DOMAINS = ("laptop", "restaurant", "device", "service")
LEAST = {"train": 1200, "test": 300}
FILES = [(domain, split) for domain in DOMAINS for split in LEAST]


class Aspect(NamedTuple):
    """One `<aspectTerm>` with its sentence."""

    text: str
    attributes: dict[str, str]


def aspects_of(domain: str, split: str) -> list[Aspect]:
    """The aspects of a file, in file order."""
    root = ElementTree.parse(ASSETS / "sample" / f"{domain}_{split}.xml").getroot()
    return [
        Aspect(sentence.findtext("text", ""), dict(term.attrib))
        for sentence in root
        for term in sentence.iter("aspectTerm")
    ]


def by_text(aspects: list[Aspect]) -> dict[str, list[Aspect]]:
    """The aspects of each sentence."""
    groups: dict[str, list[Aspect]] = {}
    for aspect in aspects:
        groups.setdefault(aspect.text, []).append(aspect)
    return groups


def letters(text: str) -> str:
    """The text without case, spaces and punctuation."""
    return re.sub(r"\W+", " ", text.lower()).strip()


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """The tokenizer of the bundled model."""
    return Tokenizer.from_file(str(ASSETS / "reviewlm" / "tokenizer.json"))


@pytest.mark.parametrize(("domain", "split"), FILES)
def test_offsets_and_labels(domain: str, split: str) -> None:
    for text, term in aspects_of(domain, split):
        start, end = int(term["from"]), int(term["to"])
        assert text[start:end] == term["term"], text
        assert term["polarity"] in ("positive", "negative", "neutral"), text
        assert text == text.strip() and not re.search(r"[{}\[\]<>~@$^]|  ", text), text


@pytest.mark.parametrize(("domain", "split"), FILES)
def test_ids_are_unique(domain: str, split: str) -> None:
    root = ElementTree.parse(ASSETS / "sample" / f"{domain}_{split}.xml").getroot()
    ids = [sentence.get("id") for sentence in root]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize(("domain", "split"), FILES)
def test_counts(domain: str, split: str) -> None:
    aspects = aspects_of(domain, split)
    assert len(aspects) >= LEAST[split]
    neutral = sum(term["polarity"] == "neutral" for _, term in aspects) / len(aspects)
    assert 0.15 <= neutral <= 0.27
    groups = by_text(aspects).values()
    mixed = sum(len({a.attributes["polarity"] for a in group}) > 1 for group in groups)
    assert mixed / len(groups) >= 0.25


@pytest.mark.parametrize("domain", DOMAINS)
def test_what_is_left_for_training_and_development(domain: str) -> None:
    splits = load_splits(DataSettings(name=f"{domain}-sample", tests=[]), root=ASSETS, environ={})
    assert len(splits.train) >= 1200 and len(splits.dev) >= 200


@pytest.mark.parametrize("domain", DOMAINS)
def test_no_sentence_is_in_both_splits(domain: str) -> None:
    train, test = ({letters(a.text) for a in aspects_of(domain, s)} for s in ("train", "test"))
    assert not train & test


@pytest.mark.parametrize("domain", DOMAINS)
def test_no_wording_of_a_clause_is_dealt_to_both_splits(domain: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import make_sample

    lines = [
        line
        for path in sorted((ROOT / "scripts" / "sample").glob(f"{domain}_*.txt"))
        for line in make_sample.read_clauses(path)
    ]
    dealt = make_sample.deal(lines, random.Random(0))
    train, test = ({make_sample.wording(line) for line in dealt[split]} for split in ("train", "test"))
    assert len(train) > 500 and len(test) > 200
    assert not train & test
    shared = {line.key for line in dealt["train"]} & {line.key for line in dealt["test"]}
    assert shared and not any(line.is_sentence for line in lines if line.key in shared)


@pytest.mark.parametrize(("domain", "split"), FILES)
def test_twins_differ_in_one_word(domain: str, split: str, tokenizer: Tokenizer) -> None:
    twins = [a for a in aspects_of(domain, split) if "twin" in a.attributes]
    assert len(twins) >= 100
    for text, term in twins:
        twin, start = term["twin"], int(term["twinFrom"])
        assert twin[start : start + len(term["term"])] == term["term"], twin
        assert {term["polarity"], term["twinPolarity"]} == {"positive", "negative"}, twin
        words = zip(text.split(), twin.split(), strict=True)
        assert sum(a != b for a, b in words) == 1, twin
        assert len(tokenizer.encode(text).ids) == len(tokenizer.encode(twin).ids), twin


def test_the_generator_writes_these_bytes() -> None:
    script = ROOT / "scripts" / "make_sample.py"
    done = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
