"""The emotion that a sentence tells of: the six of the Emotion data set (Saravia et al. 2018), or ISEAR's seven."""

from __future__ import annotations

from absa_edit.tasks.base import Task, task

NAMES = ("sadness", "joy", "love", "anger", "fear", "surprise")

EMOTIONS = task("emotions")(
    Task(
        labels=NAMES,
        template="Given the sentence: '{sentence}', which emotion does it express ?",
        asks_aspect=False,
        spellings={str(number): name for number, name in enumerate(NAMES)},
    )
)
"""Data files number the six from 0 in this order."""

ISEAR = task("isear")(
    Task(
        labels=("joy", "fear", "anger", "sadness", "disgust", "shame", "guilt"),
        template="Given the sentence: '{sentence}', which emotion does it express ?",
        asks_aspect=False,
        spellings={},
    )
)
"""Source: Scherer and Wallbott 1994."""
