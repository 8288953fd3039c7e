"""The folder of a run says what the command line changed."""

from __future__ import annotations

import pytest

from absa_edit.context import variant


def test_a_long_variant_ends_in_a_hash() -> None:
    one, other = (variant([f"prompt.template={'x' * 300}{tail}"]) for tail in "ab")
    assert one != other and len(one) < 200


@pytest.mark.parametrize(
    ("overrides", "suffix"),
    [
        (["+experiment=laptop14", "seed=3", "model=qwen2_5_0_5b", "track=none", "data.path=/x/y"], ""),
        (["stages=[trace]"], ""),
        (["trace.batch_tokens=500", "trace.samples=2"], "+trace.samples=2"),
        (["locate=manual", "locate.layers=[4,5]"], "+locate.layers=4-5+locate=manual"),
        (["model.name=/models/mine", "model.dtype=bfloat16"], "+model.dtype=bfloat16"),
        (["method=[edit,lora]"], "+method=edit-lora"),
    ],
)
def test_variants_have_folders_of_their_own(overrides: list[str], suffix: str) -> None:
    assert variant(overrides) == suffix
