"""Where the data comes from, and what is said when it is not there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from material import Write, some

from absa_edit.data import hub
from absa_edit.data.public_sets import PUBLIC
from absa_edit.data.settings import DataSettings, Leaks
from absa_edit.data.sources import SAMPLES, Splits, load_splits
from absa_edit.errors import DataError

pytestmark = pytest.mark.usefixtures("any_counts")
OFFLINE = {"HF_HUB_OFFLINE": "1"}


def load(root: Path, environ: dict[str, str] | None = None, **settings: Any) -> Splits:
    return load_splits(DataSettings(**settings), root=root, environ={**OFFLINE, **(environ or {})})


def names(splits: Splits) -> list[str]:
    return [test.name for test in splits.tests]


def put(write: Write, folder: str, stem: str = "Laptops", word: str = "lid") -> None:
    """A small public-looking pair of files."""
    write(f"{folder}/{stem}_Train_v2.xml", some(f"{word} train", 20))
    write(f"{folder}/{stem}_Test_Gold.xml", some(f"{word} test", 10))


def test_data_folder_of_the_project(tmp_path: Path, write: Write) -> None:
    put(write, "data/semeval14")
    splits = load(tmp_path, name="laptop14")
    assert splits.train.name == splits.dev.name == "laptop14"
    assert (len(splits.train), len(splits.dev), len(splits.tests[0])) == (18, 2, 10)
    assert {e.domain for e in splits.train.examples} == {"laptop"}
    assert splits.notices == ()


def test_a_file_that_only_bears_the_name_is_refused(
    tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    mams = replace(PUBLIC["mams"], counts={"test": (400, 329, 607)})
    monkeypatch.setitem(PUBLIC, "mams", mams)
    for split in ("train", "test"):
        write(f"data/{split}.xml", some(split, 5))
    assert names(load(tmp_path, name="laptop-sample", tests=["mams"])) == ["laptop-sample"], "it could be any set's"
    for split in ("train", "test"):
        write(f"data/mams/{split}.xml", some(split, 5))
    for asked in ({"name": "mams"}, {"name": "laptop-sample", "tests": ["mams"]}):
        with pytest.raises(DataError, match=r"test\.xml: 5 aspects .* mams has 1336 aspects .* another set"):
            load(tmp_path, **asked)


@pytest.mark.parametrize("name", ["mams", "laptop-sample"])
def test_own_files_have_a_name_of_their_own(tmp_path: Path, write: Write, name: str) -> None:
    train, test = (str(write(f"{split}.xml", some(split, 5))) for split in ("train", "test"))
    with pytest.raises(DataError, match=f"data.name={name} is .* name; give your own files another one: data=files"):
        load(tmp_path, name=name, train=train, test=test)


def test_path_goes_before_environment_and_environment_before_the_project(tmp_path: Path, write: Write) -> None:
    for folder in ("data", "env", "own"):
        put(write, folder, word=folder)
    environ = {"ABSA_EDIT_DATA": str(tmp_path / "env")}

    def aspect(**settings: Any) -> str:
        return load(tmp_path, environ, name="laptop14", **settings).tests[0].examples[0].aspect

    assert aspect(path=str(tmp_path / "own")) == "own test"
    assert aspect() == "env test"
    (tmp_path / "env" / "Laptops_Test_Gold.xml").unlink()
    assert aspect() == "data test"


def test_a_set_that_is_not_under_path_is_an_error(tmp_path: Path, write: Write, samples: Path) -> None:
    put(write, "data")
    with pytest.raises(DataError) as error:
        load(tmp_path, name="laptop14", path=str(tmp_path / "own"))
    for part in (
        "data.name=laptop14 was not found (data.path)",
        f"semeval14/Laptops_Train_v2.xml and semeval14/Laptops_Test_Gold.xml in {tmp_path / 'own'}",
        "put the official XML files Laptops_Train_v2.xml and Laptops_Test_Gold.xml into a folder",
    ):
        assert part in str(error.value)


def test_the_hub_comes_after_the_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, samples: Path) -> None:
    def rows(split: str) -> list[dict[str, Any]]:
        return [{"text": f"{split} {n} lid", "span": "lid", "label": "neutral", "ordinal": 0} for n in range(4)]

    monkeypatch.setattr(hub, "download", lambda hub_id: {s: rows(s) for s in ("train", "test")})
    splits = load_splits(DataSettings(name="laptop14"), root=tmp_path, environ={})
    assert (splits.train.source, splits.train.name, splits.notices) == ("hub", "laptop14", ())


def test_fallback_is_named_the_sample_and_cannot_be_missed(tmp_path: Path, samples: Path) -> None:
    tests = ["laptop14", "restaurant14", "mams", "me_absc_device"]
    splits = load(tmp_path, name="laptop14", tests=tests)
    assert splits.train.name == splits.dev.name == "laptop-sample"
    assert names(splits) == ["laptop-sample", "restaurant-sample"]
    notice, device = splits.notices
    for part in (
        "THIS RUN USES THE BUNDLED SAMPLE laptop-sample, NOT laptop14.",
        f"semeval14/Laptops_Train_v2.xml and semeval14/Laptops_Test_Gold.xml in {tmp_path / 'data'}",
        "hub tomaarsen/setfit-absa-semeval-laptops: not asked, HF_HUB_OFFLINE is set",
        "set data.path=FOLDER or ABSA_EDIT_DATA=FOLDER",
        "data.strict=true",
    ):
        assert part in notice
    assert device == "Test set me_absc_device is left out: there is no bundled sample for device."


def test_after_a_fallback_public_test_sets_are_samples_too(tmp_path: Path, write: Write, samples: Path) -> None:
    put(write, "data", "Restaurants")
    assert names(load(tmp_path, name="laptop14", tests=["restaurant14"])) == [
        "laptop-sample",
        "restaurant-sample",
    ]


def test_strict_is_an_error_instead(tmp_path: Path, samples: Path) -> None:
    with pytest.raises(DataError, match=r"data\.name=laptop14 was not found \(data\.strict=true\): looked for"):
        load(tmp_path, name="laptop14", strict=True)


def test_the_papers_sets_fall_back_where_there_is_a_sample(tmp_path: Path, samples: Path) -> None:
    assert load(tmp_path, name="me_absc_rest").train.name == "restaurant-sample"
    with pytest.raises(DataError, match=r"me_absc_device was not found \(no bundled sample\): looked for me_absc/dev"):
        load(tmp_path, name="me_absc_device")


def test_a_sample_asked_for_by_name_gives_no_notice(tmp_path: Path, samples: Path) -> None:
    splits = load(tmp_path, name="laptop-sample", tests=["restaurant-sample", "laptop-sample"])
    assert names(splits) == ["laptop-sample", "restaurant-sample"]
    assert splits.notices == ()


def test_other_test_sets_and_those_left_out(tmp_path: Path, write: Write) -> None:
    put(write, "data")
    put(write, "env", "Restaurants", "tea")
    splits = load(
        tmp_path,
        {"ABSA_EDIT_DATA": str(tmp_path / "env")},
        name="laptop14",
        path=str(tmp_path / "data"),
        tests=["restaurant14", "mams", "restaurant14"],
    )
    assert names(splits) == ["laptop14", "restaurant14"]
    (notice,) = splits.notices
    assert notice.startswith("Test set mams is left out: looked for mams/test.xml in ")
    assert "To use mams: absa-edit data fetch mams, or put" in notice


def test_own_files(tmp_path: Path, write: Write) -> None:
    train, test = write("a.xml", some("lid")), write("b.xml", some("fan"))
    settings = {"name": "mine", "train": str(train), "test": str(test)}
    splits = load(tmp_path, **settings, domain="bicycle")
    assert (splits.train.name, splits.tests[0].name) == ("mine", "mine")
    assert splits.tests[0].examples[0].domain == "bicycle"
    assert load(tmp_path, **settings).train.examples[0].domain == "product"
    with pytest.raises(DataError, match="no such file"):
        load(tmp_path, **{**settings, "test": str(tmp_path / "none.xml")})


def test_own_files_do_not_take_the_samples_name(tmp_path: Path) -> None:
    own = DataSettings(name="laptop-sample", train="a.jsonl", test="b.jsonl")
    with pytest.raises(DataError, match="is the bundled sample's name"):
        load_splits(own, root=tmp_path, environ={})


@pytest.mark.parametrize("settings", [{"name": "labtop14"}, {"name": "laptop-sample", "tests": ["labtop14"]}])
def test_an_unknown_name_is_an_error(tmp_path: Path, samples: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"=labtop14: no such data set\. Did you mean laptop14\?"):
        load(tmp_path, **settings)


def test_limits_count_whole_sets_and_leaks_the_whole_training_file(tmp_path: Path, write: Write) -> None:
    write("data/Laptops_Train_v2.xml", some("lid", 20))
    write("data/Laptops_Test_Gold.xml", some("lid", 30))
    splits = load(tmp_path, name="laptop14", limit_train=5, limit_test=4)
    assert len(splits.train) + len(splits.dev) == 5
    assert splits.train.dropped == {"over_limit": 15}
    assert splits.tests[0].dropped == {"leaked": 20, "over_limit": 6}
    assert len(load(tmp_path, name="laptop14", leaks=Leaks.keep).tests[0]) == 30


def test_other_test_sets_are_checked_for_leaks(tmp_path: Path, write: Write) -> None:
    put(write, "data")
    write("data/Restaurants_Train_v2.xml", some("tea"))
    write("data/Restaurants_Test_Gold.xml", some("lid train", 25))
    assert load(tmp_path, name="laptop14", tests=["restaurant14"]).tests[1].dropped == {"leaked": 20}


def test_draws_depend_on_the_split_seed_and_not_on_other_settings(tmp_path: Path, write: Write) -> None:
    put(write, "data")
    put(write, "data", "Restaurants", "tea")
    base = load(tmp_path, name="laptop14", limit_test=3)
    more = load(tmp_path, name="laptop14", limit_test=3, tests=["restaurant14"])
    assert (more.train, more.dev, more.tests[0]) == (base.train, base.dev, base.tests[0])
    other = load(tmp_path, name="laptop14", limit_test=3, split_seed=1)
    assert other.dev != base.dev
    assert other.tests != base.tests


def test_the_real_sets(tmp_path: Path, public_data: Path) -> None:
    splits = load(
        tmp_path,
        {"ABSA_EDIT_DATA": str(public_data)},
        name="laptop14",
        tests=["restaurant14", "me_absc_rest"],
    )
    assert len(splits.train) + len(splits.dev) == 2313
    assert [(t.name, len(t), t.dropped.get("leaked", 0)) for t in splits.tests] == [
        ("laptop14", 637, 1),
        ("restaurant14", 1120, 0),
        ("me_absc_rest", 2252, 0),
    ]
    assert splits.notices == ()


@pytest.mark.parametrize("domain", ["laptop", "restaurant", "device", "service"])
def test_the_bundled_samples(tmp_path: Path, domain: str) -> None:
    if not (SAMPLES / f"{domain}_train.xml").is_file():
        pytest.skip(f"no bundled sample of {domain}: run scripts/make_sample.py")
    splits = load(tmp_path, name=f"{domain}-sample")
    assert len(splits.train) + len(splits.dev) >= 1200
    assert len(splits.tests[0]) >= 300
    assert splits.tests[0].dropped.get("leaked", 0) == 0
    assert any(e.twin for e in splits.train.examples)
