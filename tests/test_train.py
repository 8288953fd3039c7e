"""The command line: every experiment composes, every typo stops with the key named."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import ConfigCompositionException, MissingConfigException

from absa_edit.compose import register, settings_from
from absa_edit.errors import SettingsError
from absa_edit.methods.full import Full
from absa_edit.methods.lora import Lora
from absa_edit.methods.low_rank_edit import Edit
from absa_edit.records import Part, Role
from absa_edit.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
EXPERIMENTS = sorted(p.stem for p in (ROOT / "conf" / "experiment").glob("*.yaml"))


def settings(*overrides: str) -> Settings:
    register()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return settings_from(compose("train", list(overrides)))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_composes(name: str) -> None:
    composed = settings(f"+experiment={name}")
    assert composed.data.name in composed.name
    assert list(composed.method) == ["zero_shot", "edit", "random", "lora", "full"]
    assert composed.method["random"].locate == "random"  # type: ignore[attr-defined]


@pytest.mark.parametrize("group", ["task", "data", "model", "locate", "method", "track"])
def test_every_option_composes(group: str) -> None:
    needed = {
        "manual": ["locate.layers=[4,5]"],
        "depth": ["locate.depth=[0.3,0.5]"],
        "file": ["locate.plan=plan.json"],
        "files": ["data.name=mine", "data.train=a.xml", "data.test=b.xml"],
    }
    for option in sorted(p.stem for p in (ROOT / "conf" / group).glob("*.yaml")):
        settings(f"{group}={option}", *needed.get(option, []))


def test_one_method_or_several() -> None:
    assert list(settings("method=lora").method) == ["lora"]
    both = settings("method=[edit,full]", "method.edit.representation=true", "method.full.lr=1e-4").method
    assert isinstance(both["edit"], Edit) and both["edit"].representation
    assert isinstance(both["full"], Full) and both["full"].lr == 1e-4
    lora = settings("method=lora", "method.lora.rank=16").method["lora"]
    assert isinstance(lora, Lora) and lora.rank == 16


def test_the_random_control_is_trained_as_the_edit_is() -> None:
    changed = {
        "lr": 1e-3, "alpha": 16.0, "rslora": True, "dropout": 0.1, "weights": False, "representation": True,
        "representation_rank": 2, "representation_lr": 1e-3, "position": Role.last,
        "scale": True,
    }  # fmt: skip
    assert {*changed, "locate"} == {f.name for f in fields(Edit)}
    told = [f"method.edit.{key}={getattr(value, 'value', value)}" for key, value in changed.items()]
    both = settings("+experiment=laptop14", *told).method
    assert both["random"] == replace(both["edit"], locate="random")
    assert all(getattr(both["random"], key) == value for key, value in changed.items())
    plain = settings("method=[edit,random]").method
    assert settings("method=random").method["random"] == plain["random"]
    assert settings("method=[edit,random]", "method.random.lr=1e-4").method["random"] == replace(
        plain["random"], lr=1e-4
    )


def test_manual_layers() -> None:
    locate = settings("locate=manual", "locate.layers=[4,5]", "locate.parts=[attn]").locate
    assert (locate.kind, locate.layers, locate.parts) == ("manual", [4, 5], [Part.attn])


def test_roles_and_tokens_are_spelled_as_in_the_tables() -> None:
    trace = settings("trace.roles=[aspect,last]", "trace.tokens=aspect", "trace.corruption=counterfactual").trace
    assert trace.roles == [Role.aspect, Role.last]


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("sede=1", "sede"),
        ("data.nam=x", "nam"),
        ("trace.samples=many", "trace.samples"),
        ("trace.tokens=subject", "trace.tokens"),
        ("method.edit.rnk=3", "rnk"),
        ("model.dtype=float31", "model.dtype"),
        ("locate.rank=0", "locate.rank"),
        ("locate.layers=[3]", "locate=manual"),
        ("locate.depth=[0.1,0.2]", "locate=depth"),
        ("locate.depth=[0.5,0.2]", "the smaller one first"),
        ("locate.depth=[0.5]", "two shares"),
        ("fit.epochs=0", "fit.epochs"),
        ("prompt.template=nothing", "prompt.template"),
        ("+colour=red", "colour"),
        ("+trace.exmples=3", "trace.exmples: unknown setting. Did you mean trace.examples?"),
        ("+fit.epoch=9", "fit.epoch: unknown setting. Did you mean fit.epochs?"),
        ("+method.edit.rnak=3", "method.edit.rnak: unknown setting. Did you mean locate.rank or method.lora.rank?"),
        ("+model.load_in_4bit=true", "model.load_in_4bit: unknown setting. Expected one of model.name, model.gguf"),
        ("+data.more={a:1}", "data.more: unknown setting"),
        ("trace.parts=[atn]", "trace.parts"),
        ("stages=[trase]", "stages"),
        ("stages=[]", "stages=[]"),
        ("stages=[trace,export]", "export"),
        ("stages=[report]", "report"),
        ("stages=[locate,report]", "report"),
        ("seed=-1", "seed=-1"),
        ("data.dev_share=0.9", "data.dev_share"),
        ("data.train=only.xml", "data.test"),
        ("fit.batch=3", "batch"),
        ("data=files", "data.name"),
        ("method.lora.rank=0", "rank"),
        ("method.edit.locate=manual", "locate"),
        ("fit.warmup=2", "warmup"),
        ("score.resamples=-1", "resamples"),
        ("trace.parts=[]", "parts"),
        ("trace.parts=[head]", "parts"),
    ],
)
def test_a_typo_stops_with_the_key(override: str, named: str) -> None:
    with pytest.raises((SettingsError, ConfigCompositionException)) as error:
        settings("+experiment=laptop14", override)
    told = str(error.value) + str(error.value.__cause__)
    assert named in told


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["locate.parts=[head]"], "locate.sites=16"),
        (["locate.parts=[head]", "locate.shape=sites", "locate.sites=3"], "head, which is not traced"),
        (["trace.parts=[block,attn]"], "mlp, which is not traced"),
        (["trace.parts=[block,attn]", "locate=all", "method.edit.locate=trace"], "mlp, which is not traced"),
        (["locate=all", "locate.sites=3", "locate.shape=sites"], "not with locate=all"),
        (["locate.sites=3", "locate.shape=sites", "locate.width=2"], "without"),
        (["locate.sites=3"], "locate.shape=sites"),
        (
            ["trace.engine=auto", "trace.parts=[block,head]", "locate.parts=[head]", "locate.shape=sites",
             "locate.sites=3"],
            "auto runs no head exactly",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_located_stops_before_anything_is_traced(overrides: list[str], named: str) -> None:
    with pytest.raises((SettingsError, ConfigCompositionException)) as error:
        settings("+experiment=laptop14", *overrides)
    assert named in str(error.value) + str(error.value.__cause__)


def test_heads_by_number() -> None:
    heads = ["trace.parts=[block,head]", "locate.parts=[head]", "locate.shape=sites", "locate.sites=3"]
    composed = settings("+experiment=laptop14", *heads)
    assert composed.locate.sites == 3
    assert composed.locate.by("all").sites is None
    settings("+experiment=laptop14", "trace.parts=[block,attn]", "stages=[trace]")  # nothing is located
    settings("+experiment=laptop14", "locate=manual", "locate.layers=[2]", "locate.parts=[head]")


@pytest.mark.parametrize("override", ["+experiment=laptop15", "method=lra", "model=revlm", "data=laptop"])
def test_an_unknown_option_stops_with_the_choices(override: str) -> None:
    with pytest.raises(MissingConfigException, match="Available options"):
        settings(override)


def test_a_typo_in_an_experiment_file_stops(tmp_path: Path) -> None:
    for name in ("train.yaml", "task", "data", "model", "locate", "method", "track", "hydra"):
        (tmp_path / name).symlink_to(ROOT / "conf" / name)
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "bad.yaml").write_text("# @package _global_\nsede: 7\n")
    register()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(tmp_path), version_base="1.3"):
        with pytest.raises((SettingsError, ConfigCompositionException)) as error:
            settings_from(compose("train", ["+experiment=bad"]))
        assert "sede" in str(error.value) + str(error.value.__cause__)


def test_errors_are_one_line_and_exit_1(tmp_path: Path) -> None:
    command = [sys.executable, "train.py", "+experiment=laptop14", "data.name=laptop41", f"output={tmp_path}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 1
    assert "data.name=laptop41: no such data set. Did you mean laptop14?" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())
