"""Aspect-based sentiment classification: the polarity of one aspect of a sentence."""

from __future__ import annotations

from enum import StrEnum

from absa_edit.tasks.base import Task, task


class Polarity(StrEnum):
    """The three sentiments of an aspect, in label order."""

    positive = "positive"
    negative = "negative"
    neutral = "neutral"


POLARITIES: tuple[Polarity, ...] = tuple(Polarity)

ABSC = task("absc")(
    Task(
        labels=tuple(p.value for p in Polarity),
        template="Given the sentence: '{sentence}', what is the sentiment polarity of the aspect term {aspect} ?",
        asks_aspect=True,
        spellings={"pos": "positive", "neg": "negative", "neu": "neutral"},
        dropped=("conflict",),
    )
)
"""Source of the template: arXiv 2503.15117, official code. SemEval's `conflict` is left out, as everybody does."""
