"""The notation of the hand-written material, and how a line of it becomes a sentence.

Material files are plain text, one item a line; `#` starts a comment line.

    == fan : fan, fans*, cooling fan      a group of aspect terms that share clauses (`*` = plural)
    == zoom /camera : zoom, zoom range    the same, only for reviews of one kind
    + the @ [is|are] (quiet~loud) enough  a clause: polarity, `@` for the aspect term
    -. Who asked for this @?              a full stop after the polarity: a whole sentence

Inside a line:

    {a|b}          either text, picked at random (may be nested)
    [is|are]       agrees with the aspect term in number
    (quiet~loud)   an opinion word and the word that turns it; `(quiet~loud!)` is never written
                   turned, `(quiet~loud@2)` belongs to the second aspect of the line
    <fan|fans*:->  an aspect term with its own polarity, in lines with several aspects

Frames (`frames_*.txt`) join clauses: `xy  $1, but $2.` takes two clauses of opposite polarity.
`x` is positive or negative, `y` its opposite, `0` neutral; `^2` is `$2` with a capital letter.
`-!` marks a frame that praises or blames by itself: no counterfactual twin is made inside it.
A `T` before the pattern keeps the frame for the test split.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, replace
from pathlib import Path

SIGN = {"+": "positive", "-": "negative", "0": "neutral"}
TURNED = {"+": "-", "-": "+"}

_INNERMOST = re.compile(r"\{([^{}]*)\}")
_MARK = re.compile(
    r"<(?P<terms>[^<>:]+)(?::(?P<sign>[+\-0]))?>"
    r"|(?P<at>@)"
    r"|\((?P<word>[^()~]+)~(?P<other>[^()~!@]+)(?P<keep>!)?(?:@(?P<owner>\d))?\)"
    r"|\[(?P<one>[^\[\]|]*)\|(?P<many>[^\[\]|]*)\]"
)
_TURN = re.compile(r"\(([^()~]+)~([^()~!@]+)(@\d)?\)")


@dataclass(frozen=True)
class Piece:
    """A run of text. `aspect` numbers the aspect it is; `turns` the aspect whose polarity
    changes when the run is replaced by `other`."""

    text: str
    aspect: int | None = None
    sign: str = ""
    turns: int | None = None
    other: str = ""


@dataclass(frozen=True)
class Line:
    """One line of material, in one orientation of its opinion word."""

    key: str
    """The line as written: both orientations of a line share it."""
    group: str
    kind: str
    sign: str
    text: str
    terms: tuple[str, ...] = ()
    is_sentence: bool = False


@dataclass(frozen=True)
class Frame:
    """A pattern that joins clauses, with the polarities it takes."""

    signs: str
    text: str
    test: bool
    leads: bool
    """The frame itself praises or blames, so a turned word inside it would contradict it."""


def turned(line: Line) -> Line | None:
    """The line with its opinion word turned, or None when it has none or must not be turned."""
    if line.sign not in TURNED or len(_TURN.findall(line.text)) != 1:
        return None
    text = _TURN.sub(lambda m: f"({m[2]}~{m[1]}{m[3] or ''})", line.text)
    return replace(line, sign=TURNED[line.sign], text=text)


def read_clauses(path: Path) -> list[Line]:
    """The clauses and whole sentences of a material file, in file order, as written."""
    lines: list[Line] = []
    group, kind, terms = "", "", ()
    for number, raw in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        row = raw.strip()
        if not row or row.startswith("#"):
            continue
        if row.startswith("=="):
            name, _, listed = row[2:].partition(" : ")
            group, _, kind = (part.strip() for part in name.partition("/"))
            terms = tuple(term.strip() for term in listed.split(",") if term.strip())
            continue
        mark, _, text = row.partition(" ")
        is_sentence = mark.endswith(".")
        sign = mark.rstrip(".")
        if sign not in SIGN and sign != "*":
            raise ValueError(f"{path.name}:{number}: starts with {mark!r}, not + - 0 or *")
        if sign != "*" and "@" not in re.sub(r"~[^()]*@\d", "", text) and "<" not in text:
            raise ValueError(f"{path.name}:{number}: no aspect in {text!r}")
        lines.append(Line(row, group, kind, sign, text, terms, is_sentence or sign == "*"))
    return lines


def read_frames(path: Path) -> list[Frame]:
    """The frames of a file, in file order."""
    frames = []
    for raw in path.read_text(encoding="utf-8").splitlines():
        row = raw.strip()
        if not row or row.startswith("#"):
            continue
        test = row.startswith("T ")
        signs, _, text = row.removeprefix("T ").partition(" ")
        frames.append(Frame(signs.rstrip("!"), text.strip(), test, signs.endswith("!")))
    return frames


def pick(text: str, rng: random.Random) -> str:
    """The text with every `{a|b}` settled."""
    while match := _INNERMOST.search(text):
        chosen = rng.choice(match[1].split("|"))
        text = text[: match.start()] + chosen + text[match.end() :]
    return re.sub(r" +", " ", text)


def settled(text: str) -> list[str]:
    """Every text that `{a|b}` can become."""
    match = _INNERMOST.search(text)
    if not match:
        return [re.sub(r" +", " ", text)]
    each = (text[: match.start()] + chosen + text[match.end() :] for chosen in match[1].split("|"))
    return [variant for part in each for variant in settled(part)]


def realise(line: Line, rng: random.Random, first: int = 0) -> list[Piece]:
    """The pieces of a clause; its aspects are numbered from `first`."""
    text = pick(line.text, rng)
    pieces: list[Piece] = []
    turns: list[tuple[int, int]] = []  # piece, aspect number within the line (0 = not said)
    chosen: dict[int, bool] = {}
    marks = list(_MARK.finditer(text))
    plural = False
    for mark in marks:  # agreement may come before the term, so terms are settled first
        listed = mark["terms"].split("|") if mark["terms"] else line.terms if mark["at"] else ()
        if listed:
            chosen[mark.start()] = rng.randrange(len(listed))
            if len(chosen) == 1:
                plural = listed[chosen[mark.start()]].endswith("*")
    at, count = 0, 0
    for mark in marks:
        if text[at : mark.start()]:
            pieces.append(Piece(text[at : mark.start()]))
        at = mark.end()
        if mark["one"] is not None:
            pieces.append(Piece(mark["many"] if plural else mark["one"]))
        elif mark["word"]:
            if " " in mark["word"] + mark["other"]:
                raise ValueError(f"a twin turns one word, not {mark[0]!r}: {line.key!r}")
            turns.append((len(pieces), int(mark["owner"] or 0)))
            pieces.append(Piece(mark["word"], other=mark["other"]))
        else:
            listed = mark["terms"].split("|") if mark["terms"] else line.terms
            term = listed[chosen[mark.start()]].strip()
            plural = term.endswith("*")
            sign = mark["sign"] or line.sign
            pieces.append(Piece(term.rstrip("*"), aspect=first + count, sign=sign))
            count += 1
    if text[at:]:
        pieces.append(Piece(text[at:]))
    for index, owner in turns:
        if owner:
            number = first + owner - 1
        else:  # the nearest aspect before the word, else the first one after it
            before = [p.aspect for p in pieces[:index] if p.aspect is not None]
            number = before[-1] if before else first
        pieces[index] = replace(pieces[index], turns=number)
    return pieces


def capital(pieces: list[Piece]) -> list[Piece]:
    """The pieces with the first letter in upper case (of the turned word too)."""
    done = list(pieces)
    for index, piece in enumerate(done):
        if piece.text.strip():
            other = piece.other[:1].upper() + piece.other[1:]
            done[index] = replace(piece, text=piece.text[:1].upper() + piece.text[1:], other=other)
            break
    return done


def fill(frame: Frame, clauses: list[Line], rng: random.Random) -> list[Piece]:
    """The pieces of a frame with its slots filled, first letter in upper case."""
    pieces: list[Piece] = []
    for part in re.split(r"([$^]\d)", pick(frame.text, rng)):
        if part[:1] in ("$", "^") and part[1:].isdigit():
            first = sum(piece.aspect is not None for piece in pieces)
            clause = realise(clauses[int(part[1:]) - 1], rng, first)
            if frame.leads:
                clause = [replace(piece, turns=None) for piece in clause]
            pieces += capital(clause) if part[0] == "^" else clause
        elif part:
            pieces.append(Piece(part))
    return capital(pieces)
