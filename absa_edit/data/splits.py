"""Development split, limits and leaks. Sentences stay whole: all aspects of equal texts go together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from absa_edit.data.assemble import squash
from absa_edit.data.settings import Leaks
from absa_edit.errors import DataError
from absa_edit.records import Dataset, Example


def split_dev(train: Dataset, share: float, rng: np.random.Generator) -> tuple[Dataset, Dataset]:
    """Training and development set: `share` of the sentences, at least one, are held out.

    Raises `DataError` when the set has a single sentence.
    """
    sentences = _sentences(train)
    if len(sentences) < 2:
        raise DataError(
            f"{train.name} ({', '.join(train.sha256)}): one sentence cannot be split into training and "
            "development data. Give more data, or raise data.limit_train."
        )
    count = min(max(1, round(share * len(sentences))), len(sentences) - 1)
    held_out = {sentences[at] for at in rng.permutation(len(sentences))[:count]}
    dev = tuple(e for e in train.examples if squash(e.text) in held_out)
    rest = tuple(e for e in train.examples if squash(e.text) not in held_out)
    return replace(train, examples=rest), replace(train, split="dev", examples=dev, dropped={})


def limit(data: Dataset, most: int | None, rng: np.random.Generator) -> Dataset:
    """At most `most` examples of `data`, whole sentences drawn at random, in the file's order.

    Sentences are taken in drawn order while they fit, so that a larger limit mostly adds to a smaller
    one. Raises `DataError` when not one sentence fits.
    """
    if most is None or len(data) <= most:
        return data
    sentences = _sentences(data)
    size = dict.fromkeys(sentences, 0)
    for example in data.examples:
        size[squash(example.text)] += 1
    kept: set[str] = set()
    room = most
    for at in rng.permutation(len(sentences)):
        if size[sentences[at]] <= room:
            kept.add(sentences[at])
            room -= size[sentences[at]]
    examples = tuple(e for e in data.examples if squash(e.text) in kept)
    if not examples:
        raise DataError(f"{data.name}, {data.split}: no whole sentence has {most} aspects or fewer. Raise the limit.")
    return data.with_examples(examples, over_limit=len(data) - len(examples))


def without_leaks(test: Dataset, train: Dataset, leaks: Leaks) -> Dataset:
    """`test` with the rows whose sentence and aspect are in `train` counted as `leaked`, and dropped or kept.

    Case and white space make no difference. Raises `DataError` when there are some under
    `leaks=error`, or when nothing but leaks is there to drop.
    """
    known = {_key(e) for e in train.examples}
    leaked = [e for e in test.examples if _key(e) in known]
    if not leaked:
        return test
    what = (
        f"{', '.join(test.sha256)} ({test.name}): {len(leaked)} of {len(test)} test rows are in the training "
        f"file {', '.join(train.sha256)}, {leaked[0].id} ({leaked[0].aspect!r}) the first"
    )
    if leaks is Leaks.error:
        raise DataError(f"{what}. Set data.leaks=drop to leave them out, or data.leaks=keep to score them.")
    if leaks is Leaks.keep:
        kept = test.with_examples(test.examples, leaked=len(leaked))
        return replace(kept, leaked=frozenset(e.id for e in leaked))
    if len(leaked) == len(test):
        raise DataError(f"{what}: none is left. Give another test file, or set data.leaks=keep.")
    clean = tuple(e for e in test.examples if _key(e) not in known)
    return test.with_examples(clean, leaked=len(leaked))


def _key(example: Example) -> tuple[str, str]:
    return squash(example.text), squash(example.aspect)


def _sentences(data: Dataset) -> list[str]:
    """The different texts of `data`, normalised, in order of first appearance."""
    return list(dict.fromkeys(squash(e.text) for e in data.examples))
