"""The polarity of a whole sentence: SST-2, Rotten Tomatoes, IMDB; with `task.labels`, five classes or others."""

from __future__ import annotations

from absa_edit.tasks.base import Task, task

SENTENCE_POLARITY = task("sentence_polarity")(
    Task(
        labels=("positive", "negative"),
        template="Given the sentence: '{sentence}', what is its sentiment polarity ?",
        asks_aspect=False,
        spellings={"1": "positive", "0": "negative", "pos": "positive", "neg": "negative"},
    )
)
