"""The folder of a run says what the command line changed, in a path that can be pasted back into it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from absa_edit.data.settings import DataSettings
from absa_edit.errors import SettingsError
from absa_edit.model.settings import ModelSettings
from absa_edit.pipeline.run_folder import check_output, experiment_name, path_part, run_folder
from absa_edit.settings import Settings

LAPTOP = Settings(name="laptop14", data=DataSettings(name="laptop14"), model=ModelSettings(name="reviewlm"))


def name(*overrides: str) -> str:
    return experiment_name(LAPTOP, "laptop14", overrides)


@pytest.mark.parametrize(
    ("overrides", "stem"),
    [
        (["+experiment=laptop14", "seed=3", "model=qwen2_5_0_5b", "track=none", "data.path=/x/y"], ""),
        (["stages=[trace]", "~track", "hydra/job_logging=none"], ""),
        (["trace.batch_tokens=500", "trace.samples=2"], "-trace.samples-2"),
        (["locate=manual", "locate.layers=[4,5]"], "-locate-manual-locate.layers-4-5"),
        (["model.name=/models/mine", "model.dtype=bfloat16"], "-model.dtype-bfloat16"),
        (["method=[edit,lora]"], "-method-edit-lora"),
        (["prompt.template='{sentence} + {aspect} = ?'"], "-prompt.template-sentence-aspect"),
    ],
)
def test_variants_have_folders_of_their_own(overrides: list[str], stem: str) -> None:
    assert re.fullmatch(re.escape("laptop14" + stem) + (r"-[0-9a-f]{8}" if stem else ""), name(*overrides))


def test_a_long_variant_ends_in_a_hash() -> None:
    one, other = (name(f"prompt.template={'x' * 300}{tail}") for tail in "ab")
    assert one != other and len(one) == len(other) == 60 and one.startswith("laptop14-prompt.template-xxx")


def test_only_other_overrides_have_another_folder() -> None:
    assert name("trace.samples=2", "fit.epochs=3") == name("fit.epochs=3", "trace.samples=2")
    assert name("trace.samples=2", "trace.samples=3") == name("trace.samples=3"), "the last counts"
    assert name("trace.samples=3", "trace.samples=2") != name("trace.samples=2", "trace.samples=3")
    alike = ["method=[edit,lora]", "method=edit-lora", "method=[edit]", "method=edit", "+a.b=1", "a.b=-1", "~a.b=1"]
    assert len({name(override) for override in alike}) == len(alike)


def test_the_sample_is_not_called_by_the_public_sets_name() -> None:
    assert experiment_name(LAPTOP, "laptop-sample") == "laptop-sample"
    mine = Settings(name="mine", data=DataSettings(name="laptop14"))
    assert experiment_name(mine, "laptop-sample") == "mine-laptop-sample"


@pytest.mark.parametrize("part", ["a=b", "model+x", "größe", "..", "-x", "x" * 61, "a b", "", "a/b"])
def test_every_part_can_be_pasted(part: str) -> None:
    found = path_part(part)
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", found) and len(found) <= 60
    assert found != path_part(part + "=") and path_part(found) == found


def test_models_of_one_name_in_two_folders_are_two(tmp_path: Path) -> None:
    folders = []
    for owner in ("a", "b"):
        (tmp_path / owner / "merged").mkdir(parents=True)
        own = Settings(name="x", model=ModelSettings(name=str(tmp_path / owner / "merged")))
        folders.append(run_folder(own, "x", "merged"))
    assert folders[0] != folders[1] and all(re.fullmatch("merged-[0-9a-f]{8}", f.parent.name) for f in folders)
    assert run_folder(LAPTOP, "laptop14", "reviewlm") == Path("outputs/laptop14/reviewlm/seed0")


@pytest.mark.parametrize("output", ["file", "file/below", "/proc/x"])
def test_an_output_that_is_no_folder_is_named(output: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    with pytest.raises(SettingsError, match=rf"^output={output}: expected a folder that can be written to \("):
        check_output(Settings(name="x", output=output))


def test_an_output_that_can_be_written_to_is_left_empty(tmp_path: Path) -> None:
    check_output(Settings(name="x", output=str(tmp_path / "a" / "b")))
    assert not list((tmp_path / "a" / "b").iterdir())
