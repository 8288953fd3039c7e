"""Alignment without offsets."""

from __future__ import annotations

import pytest

from absa_edit.data.assemble import occurrences, squash


@pytest.mark.parametrize(
    ("text", "aspect", "spans"),
    [
        ("the press res is low , res", "res", [(10, 13), (23, 26)]),
        ("ohthelid is loose", "lid", [(5, 8)]),
        ("the LID is loose", "lid", [(4, 7)]),
        ("the power\u00a0 cord", "Power cord", [(4, 15)]),
        ("costs $5.00 (or so)", "(or so)", [(12, 19)]),
        ("a lid", "fan", []),
    ],
)
def test_occurrences(text: str, aspect: str, spans: list[tuple[int, int]]) -> None:
    assert occurrences(text, aspect) == spans


def test_squash() -> None:
    assert squash(" The\tLID \n is ") == "the lid is"
