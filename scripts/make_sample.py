"""Write the bundled sample data from the hand-written material in scripts/sample.

    python scripts/make_sample.py            # write absa_edit/assets/sample/*.xml
    python scripts/make_sample.py --check    # exit 1 if a committed file differs

The same material, seed and tokenizer give the same bytes. Frames are dealt to the training or the test split,
never both (the bare frame, a clause on its own, is no frame). So is every clause as it is finally worded, whatever its
aspect term; of lines with alternatives, some have wordings in both splits (SHARED), the others in one.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from xml.sax.saxutils import quoteattr

from sample.grammar import (
    SIGN,
    TURNED,
    Frame,
    Line,
    Piece,
    capital,
    fill,
    read_clauses,
    read_frames,
    realise,
    settled,
    turned,
)
from tokenizers import Tokenizer

HERE = Path(__file__).resolve().parent
OUT = HERE.parent / "absa_edit" / "assets" / "sample"
REVIEWLM = HERE.parent / "absa_edit" / "assets" / "reviewlm"
DOMAINS = ("laptop", "restaurant", "device", "service")
TARGET = {
    "train": {"laptop": 2100, "restaurant": 2000, "device": 2600, "service": 2600},
    "test": dict.fromkeys(DOMAINS, 480),
}
"""Aspects of a domain in a split; more for training where there are more clauses."""
NEUTRAL = {"train": 0.175, "test": 0.175}
TEST_SHARE = {"": 0.18, "twin": 0.36}
"""Share of the lines of a group and polarity that go to the test split; more of those that give a
counterfactual twin."""
SHARED = 0.75
"""Share of the clauses with several wordings whose wordings are dealt to both splits; whole sentences never are."""
SHARED_TEST = 0.3
"""Share of those wordings that goes to the test split."""
VARIANTS = {"train": 4, "test": 2}
"""Wordings of a whole sentence that a split takes, at most."""
LEAN = 1.9
"""Positive aspects to a negative one."""
MIXED = 0.27
"""Share of a split's sentences whose aspects differ in polarity, about."""
WORDS = (4, 42)

# Slips people make when they type; applied to a few sentences, never inside an aspect term.
SLIPS = (
    (r"\bdefinitely\b", "definately"),
    (r"\bdoesn't\b", "doesnt"),
    (r"\bdon't\b", "dont"),
    (r"\bdidn't\b", "didnt"),
    (r"\bwasn't\b", "wasnt"),
    (r"\bisn't\b", "isnt"),
    (r"\bit's\b", "its"),
    (r"\bI've\b", "Ive"),
    (r"\ba lot\b", "alot"),
    (r"\bbecause\b", "becuase"),
    (r"\breally\b", "realy"),
    (r"\bwithout\b", "wihtout"),
    (r"\bthan\b", "then"),
    (r"\bminutes\b", "minuts"),
    (r"\bseparate\b", "seperate"),
    (r"\bactually\b", "actualy"),
    (r"\bthe\b", "teh"),
    (r"\.$", ""),
    (r"\.$", "!!"),
    (r"\.$", " ..."),
)


@dataclass
class Pool:
    """The material one split may use, and how often it has."""

    lines: list[Line]
    frames: list[Frame]
    used: Counter[str] = field(default_factory=Counter)

    def clause(self, sign: str, kind: str, taken: set[str], plain: bool, rng: random.Random) -> Line | None:
        """A least-used clause with this polarity from a group not in `taken`; when `plain`, one
        without a twin where there is one."""
        fit = [
            line
            for line in self.lines
            if line.sign == sign and not line.is_sentence and line.kind in ("", kind) and line.group not in taken
        ]
        if plain:
            fit = [line for line in fit if "~" not in line.text] or fit
        if not fit:
            return None
        least = min(self.used[line.key] for line in fit)
        key = rng.choice(sorted({line.key for line in fit if self.used[line.key] == least}))
        return rng.choice([candidate for candidate in fit if candidate.key == key])


def wording(line: Line) -> str:
    """What a settled line says, whatever its aspect terms and their number."""
    text = re.sub(r"<[^<>]*>", "@", line.text)
    text = re.sub(r"\[[^\]]*\]", "is", text)
    text = re.sub(r"\(([^()~]+)~[^()]*\)", r"\1", text)
    return re.sub(r"\b(was|are|were)\b", "is", re.sub(r"\W+", " ", text))


def wordings(line: Line) -> list[Line]:
    """The line with its alternatives settled in every way, in both orientations."""
    orientations = (line, turned(line))
    return [
        replace(orientation, text=text)
        for orientation in orientations
        if orientation
        for text in settled(orientation.text)
    ]


def deal(lines: list[Line], rng: random.Random) -> dict[str, list[Line]]:
    """The settled lines by split, dealt within each group, polarity and shape."""
    cells: dict[tuple[str, ...], list[Line]] = {}
    for line in lines:
        shape = ("twin" if "~" in line.text else "", "sentence" if line.is_sentence else "")
        cells.setdefault((line.kind, line.group, line.sign, *shape), []).append(line)
    dealt: dict[str, list[Line]] = {"train": [], "test": []}
    taken: dict[str, str] = {}
    carry = shared = rng.random()
    for key, cell in cells.items():
        rng.shuffle(cell)
        carry += len(cell) * TEST_SHARE[key[3]]  # small cells: what one leaves over the next one takes
        held = int(carry)
        carry -= held
        for index, line in enumerate(cell):
            split = "test" if index < held else "train"
            variants = wordings(line)
            shared += SHARED * (len(variants) > 1 and not line.is_sentence)
            both = shared >= 1
            shared -= both
            for variant in variants:
                variant_split = ("test" if rng.random() < SHARED_TEST else "train") if both else split
                dealt[taken.setdefault(wording(variant), variant_split)].append(variant)
    return dealt


def slip(pieces: list[Piece], rng: random.Random) -> list[Piece]:
    """The pieces with one typing slip, where one of the known slips fits."""
    for pattern, wrong in rng.sample(SLIPS, len(SLIPS)):
        for index, piece in enumerate(pieces):
            plain = piece.aspect is None and piece.turns is None
            if plain and re.search(pattern, piece.text) and ("$" not in pattern or index + 1 == len(pieces)):
                done = list(pieces)
                done[index] = replace(piece, text=re.sub(pattern, wrong, piece.text, count=1))
                return done
    return pieces


def signs_of(frame: Frame, x: str) -> str:
    """The polarities of the frame's slots when `x` is this one."""
    return frame.signs.replace("x", x).replace("y", TURNED[x])


def is_mixed(pieces: list[Piece]) -> bool:
    """Whether the sentence's aspects differ in polarity."""
    return len({piece.sign for piece in pieces if piece.aspect is not None}) > 1


def sound(pieces: list[Piece]) -> bool:
    """Whether the sentence has a usable length and names each aspect once."""
    text = "".join(piece.text for piece in pieces)
    if not WORDS[0] <= len(text.split()) <= WORDS[1]:
        return False
    terms = [piece.text for piece in pieces if piece.aspect is not None]
    return all(len(re.findall(rf"\b{re.escape(term)}(?:s|es)?\b", text, re.IGNORECASE)) == 1 for term in terms)


def write_split(pool: Pool, split: str, target: int, taken: set[str], rng: random.Random) -> list[list[Piece]]:
    """The sentences of a split: every whole sentence of the material, then framed clauses until
    there are `target` aspects. `taken` holds texts already used and is added to."""
    kinds = sorted({line.kind for line in pool.lines} - {""}) or [""]
    counts: Counter[str] = Counter()
    done: list[list[Piece]] = []

    def add(pieces: list[Piece]) -> bool:
        if rng.random() < 0.05:
            pieces = slip(pieces, rng)
        text = "".join(piece.text for piece in pieces)
        key = re.sub(r"\W+", " ", text.lower())
        if key in taken or not sound(pieces):
            return False
        taken.add(key)
        counts.update(piece.sign for piece in pieces if piece.aspect is not None)
        done.append(pieces)
        return True

    sentence_lines: dict[str, list[Line]] = {}
    for line in pool.lines:
        if line.is_sentence:
            sentence_lines.setdefault(line.key, []).append(line)
    for settled_lines in sentence_lines.values():
        for line in rng.sample(settled_lines, min(len(settled_lines), VARIANTS[split])):
            add(capital(realise(line, rng)))
    while (total := counts.total()) < target:
        wants_neutral = counts["0"] < NEUTRAL[split] * total
        frames = [f for f in pool.frames if ("0" in f.signs) == wants_neutral]
        if sum(map(is_mixed, done)) >= MIXED * len(done):
            frames = [f for f in frames if len(set(f.signs)) == 1]
        frame = rng.choice(frames)
        x = "+" if counts["+"] < LEAN * counts["-"] + rng.gauss(0, 8) else "-"
        kind = rng.choice(kinds)
        clauses: list[Line] = []
        for sign in signs_of(frame, x):
            line = pool.clause(sign, kind, {c.group for c in clauses}, frame.leads, rng)
            if line is None:
                break
            clauses.append(line)
        else:
            # counted even when the sentence is refused, or a spent clause would be tried for ever
            pool.used.update(clause.key for clause in clauses)
            add(fill(frame, clauses, rng))
    rng.shuffle(done)
    return done


def twin_of(pieces: list[Piece], aspect: int, tokenizer: Tokenizer) -> tuple[str, int] | None:
    """The text with the aspect's opinion word turned and the aspect's offset in it; None when it
    has no such word or the number of tokens changes."""
    turning = [index for index, piece in enumerate(pieces) if piece.turns == aspect]
    if len(turning) != 1:
        return None
    other = [replace(piece, text=piece.other) if index == turning[0] else piece for index, piece in enumerate(pieces)]
    text = "".join(piece.text for piece in pieces)
    twin = "".join(piece.text for piece in other)
    if len(tokenizer.encode(text).ids) != len(tokenizer.encode(twin).ids):
        return None
    start = next(index for index, piece in enumerate(other) if piece.aspect == aspect)
    return twin, sum(len(piece.text) for piece in other[:start])


def to_xml(sentences: list[list[Piece]], prefix: str, tokenizer: Tokenizer) -> str:
    """The SemEval-2014 Task 4 XML of the sentences."""
    rows = ['<?xml version="1.0" encoding="UTF-8" standalone="yes"?>', "<sentences>"]
    for number, pieces in enumerate(sentences, 1):
        text = "".join(piece.text for piece in pieces)
        escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        rows.append(f'  <sentence id="{prefix}-{number:04d}">')
        rows.append(f"    <text>{escaped}</text>")
        rows.append("    <aspectTerms>")
        start = 0
        for piece in pieces:
            end = start + len(piece.text)
            if piece.aspect is not None:
                row = (
                    f"      <aspectTerm term={quoteattr(piece.text)} "
                    f'polarity="{SIGN[piece.sign]}" from="{start}" to="{end}"'
                )
                if piece.sign != "0" and (twin := twin_of(pieces, piece.aspect, tokenizer)):
                    row += f' twin={quoteattr(twin[0])} twinFrom="{twin[1]}" twinPolarity="{SIGN[TURNED[piece.sign]]}"'
                rows.append(row + "/>")
            start = end
        rows += ["    </aspectTerms>", "  </sentence>"]
    return "\n".join([*rows, "</sentences>", ""])


def make(domain: str, tokenizer: Tokenizer, seed: int) -> dict[str, str]:
    """The two files of a domain: {file name: XML}."""
    rng = random.Random(f"{seed} {domain}")
    lines = [line for path in sorted((HERE / "sample").glob(f"{domain}_*.txt")) for line in read_clauses(path)]
    frames = [frame for name in ("common", domain) for frame in read_frames(HERE / "sample" / f"frames_{name}.txt")]
    dealt = deal(lines, rng)
    taken: set[str] = set()
    files = {}
    for split in ("test", "train"):
        split_frames = [f for f in frames if f.test == (split == "test") or f.text == "$1."]
        sentences = write_split(Pool(dealt[split], split_frames), split, TARGET[split][domain], taken, rng)
        files[f"{domain}_{split}.xml"] = to_xml(sentences, f"{domain}-{split}", tokenizer)
    return files


def main() -> int:
    """The exit status: 1 when `--check` finds a difference."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 on a difference")
    parser.add_argument("--out", type=Path, default=OUT, help="folder of the XML files")
    parser.add_argument("--tokenizer", type=Path, default=REVIEWLM, help="folder of tokenizer.json")
    parser.add_argument("--domains", nargs="+", default=DOMAINS, choices=DOMAINS)
    parser.add_argument("--seed", type=int, default=14)
    args = parser.parse_args()
    tokenizer = Tokenizer.from_file(str(args.tokenizer / "tokenizer.json"))
    differ = []
    for domain in args.domains:
        for name, text in make(domain, tokenizer, args.seed).items():
            path = args.out / name
            if not args.check:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8", newline="\n")
            elif not path.exists() or path.read_bytes() != text.encode("utf-8"):
                differ.append(name)
    if differ:
        print("not what make_sample.py writes:", ", ".join(differ), file=sys.stderr)
    return int(bool(differ))


if __name__ == "__main__":
    sys.exit(main())
