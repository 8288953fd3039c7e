"""Text without opinions: what an edit of sentiment should leave alone."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files

import numpy as np


def neutral_text() -> list[str]:
    """Plain factual paragraphs, written and generated for this project (`scripts/make_neutral.py`)."""
    text = (files("absa_edit") / "assets" / "neutral.txt").read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line]


def some_paragraphs(texts: Sequence[str], words: int, rng: np.random.Generator) -> list[str]:
    """Paragraphs drawn at random until they have `words` words together, or all of them, in their order."""
    chosen, count = [], 0
    for i in rng.permutation(len(texts)):
        if count >= words:
            break
        chosen.append(int(i))
        count += len(texts[i].split())
    return [texts[i] for i in sorted(chosen)]
