"""Write the generated part of the neutral text, on which perplexity is told before and after an edit.

    python scripts/make_neutral.py            # write absa_edit/assets/neutral.txt
    python scripts/make_neutral.py --check    # exit 1 if the committed file differs

The hand-written paragraphs of scripts/neutral/by_hand.txt come first. The others are filled in from
scripts/neutral/paragraphs.txt and names.txt, which say how; the same material and seed give the same bytes.
"""

from __future__ import annotations

import random
import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent / "neutral"
OUT = HERE.parents[1] / "absa_edit" / "assets" / "neutral.txt"
EACH = 12
"""Paragraphs of a kind."""
SENTENCES = (4, 6)
"""Of a paragraph, at least and at most."""

ONES = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
]  # fmt: skip
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]


def main() -> None:
    text = "\n".join(paragraphs()) + "\n"
    if "--check" in sys.argv[1:]:
        sys.exit(OUT.read_text(encoding="utf-8") != text)
    OUT.write_text(text, encoding="utf-8")


def paragraphs() -> list[str]:
    """All paragraphs, those of the same kind apart from each other."""
    lists, kinds = read_lists(), read_kinds()
    rng = random.Random(0)
    made = [paragraph(kind, lists, rng) for _ in range(EACH) for kind in kinds]
    return [*(HERE / "by_hand.txt").read_text(encoding="utf-8").splitlines(), *made]


def read_lists() -> dict[str, list[str]]:
    """The entries of each list of names.txt."""
    lines = (HERE / "names.txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.split(": ", 1) for line in lines if not line.startswith("#"))
    return {name: entries.split(" | ") for name, entries in pairs}


def read_kinds() -> list[list[str]]:
    """The sentences of each kind of paragraph, the one that begins it first."""
    text = (HERE / "paragraphs.txt").read_text(encoding="utf-8")
    blocks = [block.splitlines() for block in text.split("\n\n")]
    return [lines for block in blocks if (lines := [line for line in block if not line.startswith("#")])]


def paragraph(kind: list[str], lists: dict[str, list[str]], rng: random.Random) -> str:
    """The first sentence and some of the others in their order, filled with the same names."""
    some = sorted(rng.sample(range(1, len(kind)), rng.randint(*SENTENCES) - 1))
    names = {name: rng.sample(entries, min(3, len(entries))) for name, entries in lists.items()}
    return " ".join(sentence(kind[i], names, rng) for i in (0, *some))


def sentence(template: str, names: dict[str, list[str]], rng: random.Random) -> str:
    """The template with one of each alternative, its names and numbers."""
    while "[" in template:
        template = re.sub(r"\[([^][]*)\]", lambda match: rng.choice(match[1].split("|")), template)
    filled = re.sub(r"\{([^}]*)\}", lambda match: place(match[1], names, rng), template)
    return filled[0].upper() + filled[1:]


def place(what: str, names: dict[str, list[str]], rng: random.Random) -> str:
    """What stands for `3-9`, `3-9w`, `1850-1930y` or the name of a list, of which `2` and `3` are other entries."""
    if number := re.fullmatch(r"(\d+)-(\d+)([wy]?)", what):
        value = rng.randint(int(number[1]), int(number[2]))
        if number[3] == "w":
            return in_words(value)
        return str(value) if number[3] == "y" else f"{value:,}"
    listed = re.fullmatch(r"([a-z]+?)([23]?)", what)
    if listed is None:
        raise SystemExit(f"paragraphs.txt: {{{what}}} is no place")
    return names[listed[1]][int(listed[2] or 1) - 1]


def in_words(value: int) -> str:
    """A number below a hundred as it is read."""
    if value < 20:
        return ONES[value]
    tens, ones = divmod(value, 10)
    return TENS[tens - 2] + (f"-{ONES[ones]}" if ones else "")


if __name__ == "__main__":
    main()
