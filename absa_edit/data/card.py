"""What a person should know of a data set before using it: the tables of its data card."""

from __future__ import annotations

import re
from collections.abc import Iterable
from statistics import median

from absa_edit.data.assemble import squash
from absa_edit.data.public_sets import PUBLIC, sample_domain
from absa_edit.data.settings import Leaks
from absa_edit.data.splits import without_leaks
from absa_edit.records import Dataset, Example
from absa_edit.table import pipe_table

Facts = dict[str, str]
"""What is said of a split, by the name of the row."""


def licence(name: str) -> str:
    """The licence of a set known by name."""
    if sample_domain(name):
        return "MIT, as this project; every line was written for it"
    return PUBLIC[name].licence if name in PUBLIC else "not known"


def facts(data: Dataset) -> Facts:
    """What can be counted in one split."""
    sentences: dict[str, list[Example]] = {}
    for example in data.examples:
        sentences.setdefault(squash(example.text), []).append(example)
    counts = data.counts()
    mixed = sum(len({e.label for e in group}) > 1 for group in sentences.values())
    words = [len(text.split()) for text in sentences]
    aspects = [e.aspect for e in data.examples]
    return {
        "sentences with an aspect": f"{len(sentences):,}",
        "aspects": f"{len(data):,}",
        " / ".join(data.labels): " / ".join(f"{counts[label]:,}" for label in data.labels),
        data.labels[-1]: _share(counts[data.labels[-1]], len(data)),
        "sentences with several labels": _share(mixed, len(sentences)),
        "aspects of several words": _share(sum(len(a.split()) > 1 for a in aspects), len(data)),
        "different aspect terms": f"{len({squash(a) for a in aspects}):,}",
        "words a sentence (least / median / most)": f"{min(words)} / {median(words):.0f} / {max(words)}",
        "aspects with a counterfactual twin": f"{sum(e.twin is not None for e in data.examples):,}",
        "rows left out or noted": ", ".join(f"{n:,} {reason}" for reason, n in sorted(data.dropped.items())) or "none",
        "SHA-256": ", ".join(f"{file} {digest[:16]}" for file, digest in data.sha256.items()),
    }


def between(train: Dataset, test: Dataset) -> Facts:
    """What the test split shares with the training split."""
    leaked = without_leaks(test, train, Leaks.keep).dropped.get("leaked", 0)
    seen, words = set(_words(train.examples)), set(_words(test.examples))
    terms = {squash(e.aspect) for e in train.examples}
    unseen = sum(squash(e.aspect) not in terms for e in test.examples)
    return {
        "test rows that stand in the training file too": f"{leaked:,}",
        "test words never seen in training": f"{len(words - seen):,} of {len(words):,}",
        "test aspects whose term is not in training": _share(unseen, len(test)),
        "test aspects of the largest class": _share(max(test.counts().values()), len(test)),
    }


def data_card(train: Dataset, test: Dataset) -> str:
    """The card of a set in Markdown."""
    left, right = facts(train), facts(test)
    lines = [
        f"# Data card: {train.name}",
        "",
        f"Domain: {train.examples[0].domain}. Source: {train.source}. Licence: {licence(train.name)}.",
        "",
        *pipe_table(("", "training", "test"), [(row, left[row], right[row]) for row in left]),
        "",
        *pipe_table(("training and test together", ""), between(train, test).items()),
    ]
    return "\n".join(lines)


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} % ({part:,})"


def _words(examples: Iterable[Example]) -> Iterable[str]:
    return (word for e in examples for word in re.findall(r"\w+", squash(e.text)))
