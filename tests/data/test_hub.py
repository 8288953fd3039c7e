"""The hub: what it gives, and that it never holds up a run."""

from __future__ import annotations

import time

import httpx
import pytest
from huggingface_hub.errors import HfHubHTTPError

from absa_edit.data import hub
from absa_edit.data.hub import Hub, Rows
from absa_edit.data.public_sets import PUBLIC

LAPTOP, RESTAURANT = PUBLIC["laptop14"], PUBLIC["restaurant14"]
ROW = {"text": "A lid on a lid.", "span": "lid", "label": "positive", "ordinal": 1}


def test_reads_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def download(hub_id: str) -> dict[str, Rows]:
        asked.append(hub_id)
        return {"train": [ROW, {**ROW, "label": "conflict"}], "test": [ROW]}

    monkeypatch.setattr(hub, "download", download)
    found = Hub({}).read(LAPTOP, "train", "test")
    assert found is not None
    train, test = found
    assert (train.name, train.split, train.source, train.dropped) == (
        "laptop14",
        "train",
        "hub",
        {"conflict": 1},
    )
    assert train.examples[0].start == 11
    assert list(test.sha256) == ["tomaarsen/setfit-absa-semeval-laptops/test"]
    assert asked == ["tomaarsen/setfit-absa-semeval-laptops"]


def test_a_hanging_hub_is_left_in_time_and_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "download", lambda hub_id: time.sleep(5))
    source = Hub({}, seconds=0.05)
    started = time.monotonic()
    assert source.read(LAPTOP, "train") is None
    assert source.read(RESTAURANT, "test") is None
    assert time.monotonic() - started < 1
    assert set(source.failures.values()) == {"no answer in time"}


def test_an_error_of_the_hub_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(hub_id: str) -> dict[str, Rows]:
        raise OSError("no route\nto anywhere")

    monkeypatch.setattr(hub, "download", download)
    source = Hub({})
    assert source.read(LAPTOP, "train") is None
    assert source.failures == {LAPTOP.hub: "not to be had (OSError: no route)"}


def test_a_set_that_is_gone_says_nothing_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(hub_id: str) -> dict[str, Rows]:
        if hub_id == LAPTOP.hub:
            raise HfHubHTTPError(
                "404 not found", response=httpx.Response(404, request=httpx.Request("GET", "http://x"))
            )
        return {"train": [ROW]}

    monkeypatch.setattr(hub, "download", download)
    source = Hub({})
    assert source.read(LAPTOP, "train") is None and source.read(RESTAURANT, "train") is not None
    assert list(source.failures) == [LAPTOP.hub]


@pytest.mark.parametrize("value", ["1", "true", "ON"])
def test_offline_asks_nobody(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setattr(hub, "download", lambda hub_id: pytest.fail("asked"))
    source = Hub({"HF_HUB_OFFLINE": value})
    assert source.read(LAPTOP, "train") is None
    assert source.failures == {LAPTOP.hub: "not asked, HF_HUB_OFFLINE is set"}


def test_a_set_that_is_not_as_expected_is_a_reason_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    sets: dict[str | None, dict[str, Rows]] = {
        LAPTOP.hub: {"train": [{"text": "x"}]},
        RESTAURANT.hub: {"train": [ROW]},
    }
    monkeypatch.setattr(hub, "download", sets.__getitem__)
    source = Hub({})
    assert source.read(LAPTOP, "train") is None
    assert source.read(LAPTOP, "test") is None
    assert source.read(RESTAURANT, "train") is not None
    assert source.failures == {LAPTOP.hub: "no split 'test' among train"}


def test_a_set_without_a_hub_id_is_nowhere() -> None:
    assert Hub({}).read(PUBLIC["mams"], "test") is None


@pytest.mark.network
@pytest.mark.parametrize(
    ("name", "train", "test"),
    [("laptop14", (987, 866, 460), (341, 128, 169)), ("restaurant14", (2164, 805, 633), (728, 196, 196))],
)
def test_the_hub_has_the_official_counts(name: str, train: tuple[int, int, int], test: tuple[int, int, int]) -> None:
    source = Hub({}, seconds=120.0)
    found = source.read(PUBLIC[name], "train", "test")
    assert found is not None, source.failures
    assert tuple(tuple(each.counts().values()) for each in found) == (train, test)
