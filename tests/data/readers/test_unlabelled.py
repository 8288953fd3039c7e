"""Files of questions: what is read of them, and the row that is named when one cannot be."""

from __future__ import annotations

from io import BytesIO

import pytest

from absa_edit.data.readers.unlabelled import pairs
from absa_edit.errors import DataError

XML = """<sentences><sentence id="7"><text>The fan is loud, a new fan helps.</text><aspectTerms>
<aspectTerm term="fan" polarity="negative" from="23" to="26"/><aspectTerm term="fan"/></aspectTerms></sentence>
<sentence id="8"><text>Fine.</text></sentence>
<sentence id="9"><text>Good food.</text><Opinions><Opinion target="food" from="5" to="9"/>
<Opinion target="NULL" from="0" to="0"/></Opinions></sentence></sentences>"""


def asked(text: str | bytes, kind: str) -> list[tuple[str, int, int]]:
    content = text.encode() if isinstance(text, str) else text
    return [(p.example.text, p.example.start, p.example.end) for p in pairs(BytesIO(content), kind, "some.file")]


def test_json_lines_keep_their_row() -> None:
    text = (
        '\ufeff{"sentence": "The fan.", "aspect": "fan", "id": 3}\n\n{"text": "fan fan", "span": "fan", "ordinal": 1}'
    )
    first, second = pairs(BytesIO(text.encode()), "jsonl", "x")
    assert first.row == {"sentence": "The fan.", "aspect": "fan", "id": 3}
    assert (first.example.aspect, first.example.start) == ("fan", 4)
    assert second.example.start == 4, "the second occurrence was asked for"


def test_csv_with_quotes_and_labels() -> None:
    text = 'id,text,span,label\n1,"A fan, and\na noise",noise,negative\n2,The fan,FAN,\n'
    assert asked(text, "csv") == [("A fan, and\na noise", 13, 18), ("The fan", 4, 7)]


def test_xml_needs_no_polarity_and_no_offsets() -> None:
    loud = "The fan is loud, a new fan helps."
    assert asked(XML, "xml") == [(loud, 23, 26), (loud, 4, 7), ("Good food.", 5, 9)]


@pytest.mark.parametrize(
    ("text", "kind", "said"),
    [
        ('{"sentence": "a fan", "aspect": "fan"}\n{"sentence": 3}', "jsonl", r"some.file, line 2: `sentence` is 3"),
        ('{"sentence": "a fan", "aspect": "fan"}\n\n[]', "jsonl", "some.file, line 3: a JSON list, not an object"),
        ('{"sentence": "a fan", "aspect', "jsonl", "some.file, line 1: not JSON"),
        ('{"sentence": "a fan", "aspect": "screen"}', "jsonl", "line 1: the aspect 'screen' is not in the sentence"),
        (b'{"sentence": "caf\xe9"}', "jsonl", "line 1: not UTF-8"),
        ("sentence,aspect\na fan,fan\na fan,fan,more", "csv", "line 3: more fields than the header has"),
        ('sentence,aspect\n"a fan,fan', "csv", "not CSV"),
        ("sentence,word\na fan,fan", "csv",
         r"line 2: no column `span` or `aspect` among sentence, word\. Expected sentence, aspect or text, span"),
        ('<s><sentence id="4"><text>a fan</text><aspectTerm term="fan" from="0" to="3"/></sentence></s>', "xml",
         "sentence 4: the aspect 'fan' is not in 'a fan' where"),
        ('<s><sentence id="4"><text>a fan</text>', "xml", "not well-formed XML"),
        ('<?xml version="1.0" encoding="gb2312"?><s/>', "xml", "not well-formed XML"),
        ('<?xml version="1.0" encoding="klingon"?><s/>', "xml", "not well-formed XML"),
        ("", "tsv", "cannot read 'tsv'; expected one of jsonl, csv, xml"),
    ],
)  # fmt: skip
def test_a_row_that_cannot_be_asked_about_is_named(text, kind, said) -> None:
    with pytest.raises(DataError, match=said):
        asked(text, kind)


def test_rows_stream() -> None:
    """The first pair is there before the second is read."""

    class Slow(BytesIO):
        lines = 0

        def __next__(self) -> bytes:
            self.lines += 1
            return super().__next__()

    file = Slow(b'{"sentence": "a fan", "aspect": "fan"}\n' * 5)
    next(pairs(file, "jsonl", "x"))
    assert file.lines == 1
