"""Names of public sets and samples."""

from __future__ import annotations

import pytest

from absa_edit.data.public_sets import PUBLIC, SAMPLE_DOMAINS, public_set, sample_domain
from absa_edit.errors import DataError


def test_files_lie_in_a_folder_of_their_own_or_directly() -> None:
    assert PUBLIC["laptop14"].candidates("train") == (
        "semeval14/Laptops_Train_v2.xml",
        "hub/laptop14_train.jsonl",
        "Laptops_Train_v2.xml",
    )
    assert PUBLIC["me_absc_rest"].candidates("test") == ("me_absc/rest_test.json", "rest_test.json")
    assert PUBLIC["mams"].candidates("test")[-1] == "test.xml"


def test_every_public_set_has_the_domain_of_a_sample() -> None:
    assert {public.domain for public in PUBLIC.values()} == set(SAMPLE_DOMAINS)


def test_sample_names() -> None:
    assert sample_domain("device-sample") == "device"
    assert sample_domain("laptop14") is sample_domain("moon-sample") is sample_domain("laptop") is None


def test_an_unknown_name_is_told_the_nearest() -> None:
    with pytest.raises(DataError, match=r"data\.name=labtop14: .* Did you mean laptop14\? Known are laptop14"):
        public_set("labtop14", "data.name")
    with pytest.raises(DataError, match=r"data\.tests=zzz: no such data set\. Known are"):
        public_set("zzz", "data.tests")
    with pytest.raises(DataError, match=r"name=laptop-sample: .* comes with the project"):
        public_set("laptop-sample", "name")
