"""SemEval XML: 2014 and MAMS (`aspectTerm`), 2015 and 2016 (`Opinion`), and the bundled sample's twins."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from absa_edit.data.assemble import Row, Skipped, broken, decode, occurrences, squash
from absa_edit.data.readers.base import reader
from absa_edit.records import Twin
from absa_edit.tasks.base import Task


@reader(".xml")
def rows(content: bytes, path: Path, task: Task) -> Iterator[Row | Skipped]:
    """The aspects of the file in its order; opinions on no word (`target="NULL"`) are skipped.

    Raises `DataError` naming the sentence for anything that is not as the format says.
    """
    if not task.asks_aspect:
        raise broken(
            path,
            None,
            "this format is of aspects, and the task asks about sentences",
            "Give a table with text and label",
        )
    root = _parse(content, path)
    sentences = list(root.iter("sentence"))
    if not sentences:
        raise broken(
            path,
            None,
            f"<{root.tag}> holds no <sentence>",
            "Expected SemEval XML: <sentences><sentence><text>... or <Reviews><Review><sentences>...",
        )
    for number, sentence in enumerate(sentences, 1):
        identity = sentence.get("id")
        record = f"sentence {identity}" if identity else f"sentence number {number}"
        for tag, name in (("aspectTerm", "term"), ("Opinion", "target")):
            for aspect in sentence.iter(tag):
                yield _row(aspect, name, sentence, record, path)


def _parse(content: bytes, path: Path) -> Element:
    try:
        return ElementTree.fromstring(content)
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        if isinstance(error, ElementTree.ParseError):
            decode(content, path)
        raise broken(
            path, None, f"not well-formed XML ({error})", "The file may be cut short; fetch it again"
        ) from None


def _row(aspect: Element, name: str, sentence: Element, record: str, path: Path) -> Row | Skipped:
    term = _attribute(aspect, name, record, path)
    if name == "target" and term == "NULL":
        return Skipped("null_target")
    text = sentence.findtext("text")
    if not text:
        raise broken(path, record, f"<{aspect.tag}> without a <text>", "Add the sentence's text")
    label = _attribute(aspect, "polarity", record, path)
    start = _offset(aspect, "from", record, path)
    end = _offset(aspect, "to", record, path)
    exact = 0 <= start < end and text[start:end] == term
    if not exact:
        start, end = _trimmed(text, term, start, end, record, path)
    return Row(
        record,
        text,
        start,
        end,
        label,
        sentence_id=sentence.get("id"),
        twin=_twin(aspect, term, record, path),
        note=None if exact else "realigned",
    )


def _trimmed(text: str, term: str, start: int, end: int, record: str, path: Path) -> tuple[int, int]:
    """The span without white space at its ends, where `term` differs from it in case or spacing only."""
    marked_text = text[start:end] if 0 <= start < end else ""
    if not marked_text.strip() or squash(marked_text) != squash(term):
        places = " or ".join(f"{a} to {b}" for a, b in occurrences(text, term)) if term.strip() else ""
        hint = f"; it stands at {places}" if places else "; the sentence does not hold it"
        raise broken(
            path,
            record,
            f"text[{start}:{end}] is {marked_text!r}, not the aspect {term!r}{hint}",
            "Correct `from` and `to`: characters counted from 0, `to` just after the aspect",
        )
    start += len(marked_text) - len(marked_text.lstrip())
    return start, start + len(marked_text.strip())


def _twin(aspect: Element, term: str, record: str, path: Path) -> Twin | None:
    text = aspect.get("twin")
    if text is None:
        return None
    start = _offset(aspect, "twinFrom", record, path)
    label = _attribute(aspect, "twinPolarity", record, path)
    end = start + len(term)
    if start < 0 or text[start:end] != term:
        raise broken(
            path,
            record,
            f"twin[{start}:{end}] is {text[max(start, 0) : end]!r}, not the aspect {term!r}",
            "Correct `twinFrom`",
        )
    return Twin(text, start, end, label)


def _attribute(element: Element, name: str, record: str, path: Path) -> str:
    value = element.get(name)
    if value is None:
        raise broken(
            path,
            record,
            f"<{element.tag}> has no attribute `{name}`",
            "Add it; for a public test set use the file with gold labels",
        )
    return value


def _offset(element: Element, name: str, record: str, path: Path) -> int:
    value = _attribute(element, name, record, path)
    try:
        return int(value)
    except ValueError:
        raise broken(
            path, record, f"`{name}` is {value!r}, not a whole number", "Give an offset in characters"
        ) from None
