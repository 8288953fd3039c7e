"""SemEval XML of all years, and what is said of a broken file."""

from __future__ import annotations

import pytest
from material import XML, Write, read_one, xml14

from absa_edit.errors import DataError
from absa_edit.records import Twin
from absa_edit.tasks.absc import Polarity

XML16 = """<Reviews><Review rid="r"><sentences>
  <sentence id="r:0"><text>The soup was cold.</text><Opinions>
    <Opinion target="soup" category="FOOD#QUALITY" polarity="negative" from="4" to="8"/>
    <Opinion target="NULL" category="SERVICE#GENERAL" polarity="negative" from="0" to="0"/>
  </Opinions></sentence>
  <sentence id="r:1" OutOfScope="TRUE"><text>Hello.</text></sentence>
</sentences></Review></Reviews>"""


def test_reads_2014(write: Write) -> None:
    data = read_one(write("a.xml", XML))
    hinge, lid, manual = data.examples
    assert (hinge.aspect, hinge.label, hinge.sentence_id) == ("hinge", Polarity.negative, "a1")
    assert "stiff & the" in hinge.text
    assert lid.twin == Twin("Wobbly lid, and it came with a manual.", 7, 10, Polarity.negative)
    assert manual.twin is None
    assert data.dropped == {"conflict": 1}
    assert data.source == "xml"
    assert list(data.sha256) == ["a.xml"]
    assert all(e.text[e.start : e.end] == e.aspect for e in data.examples)


def test_reads_2016_and_counts_null_targets(write: Write) -> None:
    data = read_one(write("b.xml", XML16))
    assert [(e.aspect, e.id) for e in data.examples] == [("soup", "r:0:4-8")]
    assert data.dropped == {"null_target": 1}


def test_mams_without_ids_takes_the_texts_hash(write: Write) -> None:
    text = xml14(("The tea is hot.", "tea", "neutral"), ("The cup is hot.", "cup", "neutral"))
    data = read_one(write("c.xml", text.replace(' id="s0"', "").replace(' id="s1"', "")))
    assert len({e.sentence_id for e in data.examples}) == 2
    assert all(len(e.sentence_id) == 16 for e in data.examples)


def test_one_id_for_two_texts_stays_two_sentences(write: Write) -> None:
    text = xml14(("The tea is hot.", "tea", "neutral"), ("The tea is cold.", "tea", "neutral"))
    data = read_one(write("c.xml", text.replace('id="s1"', 'id="s0"')))
    assert len({e.sentence_id for e in data.examples}) == len({e.id for e in data.examples}) == 2


def test_duplicates_are_counted_kept_and_told_apart(write: Write) -> None:
    row = '<aspectTerm term="tea" polarity="neutral" from="4" to="7"/>'
    text = xml14(("The tea is hot.", "tea", "neutral")).replace(row, row * 3)
    data = read_one(write("c.xml", text))
    assert data.dropped == {"duplicates": 2}
    assert [e.id for e in data.examples] == ["s0:4-7", "s0:4-7#2", "s0:4-7#3"]


def test_two_polarities_of_one_question_are_counted(write: Write) -> None:
    """SemEval-2015 and 2016 label a word once for each category: one of the two answers has to be wrong."""
    row = '<aspectTerm term="tea" polarity="{}" from="4" to="7"/>'
    three = "".join(map(row.format, ("neutral", "negative", "neutral")))
    data = read_one(write("c.xml", xml14(("The tea is hot.", "tea", "neutral")).replace(row.format("neutral"), three)))
    assert len(data) == 3 and data.dropped == {"contradictions": 1, "duplicates": 1}


def test_a_span_that_differs_in_case_and_spacing_is_taken_from_the_text(write: Write) -> None:
    text = XML.replace(
        'term="hinge" polarity="negative" from="4" to="9"', 'term="Hinge" polarity="negative" from="3" to="9"'
    )
    data = read_one(write("d.xml", text))
    assert (data.examples[0].aspect, data.examples[0].start) == ("hinge", 4)
    assert data.dropped["realigned"] == 1


def test_another_declared_encoding_is_read(write: Write) -> None:
    text = '<?xml version="1.0" encoding="ISO-8859-1"?>' + xml14(("The café is fine.", "café", "positive"))
    assert read_one(write("latin.xml", text.encode("latin-1"))).examples[0].aspect == "café"


@pytest.mark.parametrize(
    ("old", "new", "record", "found", "fix"),
    [
        (
            'from="4" to="9"',
            'from="5" to="9"',
            "sentence a1",
            "text[5:9] is 'inge', not the aspect 'hinge'; it stands at 4 to 9",
            "Correct `from` and `to`",
        ),
        (
            'from="4" to="9"',
            'from="40" to="90"',
            "sentence a1",
            "is '', not the aspect",
            "Correct `from` and `to`",
        ),
        (
            'from="4" to="9"',
            'from="-5" to="9"',
            "sentence a1",
            "is '', not the aspect",
            "Correct `from` and `to`",
        ),
        (
            'term="hinge"',
            'term="fan"',
            "sentence a1",
            "the sentence does not hold it",
            "Correct `from` and `to`",
        ),
        ('from="4"', 'from="x"', "sentence a1", "`from` is 'x', not a whole number", "offset in characters"),
        ('from="4" ', "", "sentence a1", "<aspectTerm> has no attribute `from`", "Add it"),
        (' polarity="negative" from', " from", "sentence a1", "has no attribute `polarity`", "gold labels"),
        (
            'polarity="negative" from',
            'polarity="bad" from',
            "sentence a1",
            "unknown label 'bad'",
            "Expected positive",
        ),
        (
            "<text>The hinge is stiff &amp; the lid creaks.</text>",
            "",
            "sentence a1",
            "without a <text>",
            "Add the sentence's text",
        ),
        (
            ' id="a1"><text>The hinge',
            "><text>A hinge",
            "sentence number 1",
            "not the aspect 'hinge'",
            "Correct `from`",
        ),
        (
            'twinFrom="7"',
            'twinFrom="8"',
            "sentence a3",
            "twin[8:11] is 'id,', not the aspect 'lid'",
            "Correct `twinFrom`",
        ),
        ('twinFrom="7" ', "", "sentence a3", "has no attribute `twinFrom`", "Add it"),
        (
            'twinPolarity="negative"',
            'twinPolarity="no"',
            "sentence a3",
            "unknown twinPolarity 'no'",
            "Expected",
        ),
    ],
)
def test_a_broken_sentence_is_named(write: Write, old: str, new: str, record: str, found: str, fix: str) -> None:
    assert old in XML
    path = write("broken.xml", XML.replace(old, new))
    with pytest.raises(DataError) as error:
        read_one(path)
    for part in (str(path), record, found, fix):
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("content", "found", "fix"),
    [
        (XML[:300], "not well-formed XML", "fetch it again"),
        (
            XML.replace("hinge", "hingé").encode("latin-1"),
            "line 3: byte 0xe9 is not UTF-8",
            "Save the file as UTF-8",
        ),
        ('<?xml version="1.0" encoding="klingon"?><a/>', "not well-formed XML", "fetch it again"),
        ("<html><body/></html>", "<html> holds no <sentence>", "Expected SemEval XML"),
        (
            "<sentences><sentence><text>Hm.</text></sentence></sentences>",
            "no aspect with a polarity.",
            "gold labels",
        ),
        (
            xml14(("The tea is hot.", "tea", "conflict")),
            "no aspect with a polarity (1 left out: conflict)",
            "gold labels",
        ),
        ("", "the file is empty", "Fetch or write it again"),
    ],
)
def test_a_broken_file_is_named(write: Write, content: str | bytes, found: str, fix: str) -> None:
    path = write("broken.xml", content)
    with pytest.raises(DataError) as error:
        read_one(path)
    for part in (str(path), found.replace("line 3: ", ""), fix):
        assert part in str(error.value)
    if found.startswith("line 3"):
        assert "line 3" in str(error.value)
