"""Demonstrations before a prompt: which training examples, and how they read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from absa_edit.data.prompts import filled
from absa_edit.data.settings import PromptSettings
from absa_edit.errors import DataError
from absa_edit.records import Example


def draw_shots(
    examples: Sequence[Example], labels: Sequence[str], count: int, rng: np.random.Generator
) -> tuple[Example, ...]:
    """`count` examples of different sentences in random order, `count // len(labels)` of each label.

    What is left over goes to labels drawn by `rng`. Raises `DataError` where a label has too few sentences.
    """
    if not count:
        return ()
    each, more = divmod(count, len(labels))
    wanted = {labels[i]: each + (place < more) for place, i in enumerate(rng.permutation(len(labels)))}
    by_label: dict[str, list[Example]] = {label: [] for label in labels}
    for i in rng.permutation(len(examples)):
        by_label[examples[i].label].append(examples[i])
    sentences: set[str] = set()
    drawn: list[Example] = []
    for label, candidates in sorted(by_label.items(), key=lambda item: len(item[1])):  # others leave the rarest enough
        by_sentence: dict[str, Example] = {}
        for example in candidates:
            if example.sentence_id not in sentences:
                by_sentence.setdefault(example.sentence_id, example)
        if len(by_sentence) < wanted[label]:
            raise DataError(
                f"shots={count}: {wanted[label]} training sentences with the label {label} are wanted and "
                f"{len(by_sentence)} are there; take fewer shots, or more training data"
            )
        chosen = list(by_sentence.values())[: wanted[label]]
        sentences |= {example.sentence_id for example in chosen}
        drawn += chosen
    return tuple(drawn[i] for i in rng.permutation(len(drawn)))


def preamble_of(shots: Sequence[Example], labels: Sequence[str], settings: PromptSettings) -> str:
    """Each shot as a prompt with the word that answers it, an empty line after it; `labels` are the task's."""
    words = dict(zip(labels, settings.labels, strict=True))
    return "".join(f"{filled(shot, settings)}{settings.separator}{words[shot.label]}\n\n" for shot in shots)
