"""`scripts/pretrain.py`: a toy learns, and an interrupted training ends where an uninterrupted one does."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch

from absa_edit.errors import DataError, SettingsError
from absa_edit.model.loading import load_model
from absa_edit.model.settings import ModelSettings

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "pretrain.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("pretrain", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules["pretrain"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("text")
    things, words = ("lid", "fan", "zoom", "soup"), ("great", "awful", "not good", "red")
    lines = [f"The {t} is {w} and I bought {n} of them." for n in range(12) for t in things for w in words]
    (folder / "some.txt").write_text("\n\n".join(lines), encoding="utf-8")
    return folder


def toy(script: ModuleType, **changes: object):  # type: ignore[no-untyped-def]
    small = script.Settings(
        hidden=32, layers=2, heads=2, mlp=48, vocabulary=320, length=32, batch=8, steps=8, lr=1e-2, prompts=0.25
    )
    return replace(small, **changes)


def test_a_resumed_training_ends_with_the_same_weights(script: ModuleType, text: Path, tmp_path: Path) -> None:
    losses: dict[int, float] = {}
    whole = script.pretrain(
        toy(script), text, tmp_path / "whole", checkpoint_every=2, report=lambda step, loss, v: losses.update({step: v})
    )

    def stop(step: int, loss: float, validation: float) -> None:
        if step == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        script.pretrain(toy(script), text, tmp_path / "cut", checkpoint_every=2, report=stop)
    steps: list[int] = []
    resumed = script.pretrain(
        toy(script), text, tmp_path / "cut", checkpoint_every=2, report=lambda step, *_: steps.append(step)
    )
    assert steps == [6, 8]
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))
    assert losses[8] < losses[2] - 0.2


def test_the_model_loads_as_any_other(script: ModuleType, text: Path, tmp_path: Path) -> None:
    model = script.pretrain(toy(script, steps=1), text, tmp_path)
    lm = load_model(ModelSettings(name=str(tmp_path / "model"), device="cpu"))
    assert lm.model.num_parameters() == model.num_parameters()
    assert lm.tokenizer("12").input_ids[0] == lm.tokenizer.bos_token_id
    assert len(lm.tokenizer("12", add_special_tokens=False).input_ids) == 2


def test_other_settings_do_not_go_on_from_a_checkpoint(script: ModuleType, text: Path, tmp_path: Path) -> None:
    script.pretrain(toy(script, steps=1), text, tmp_path)
    with pytest.raises(SettingsError, match="is of other settings or other text"):
        script.pretrain(toy(script, steps=1, lr=1e-3), text, tmp_path)


def test_weak_labels(script: ModuleType) -> None:
    found = list(
        script.weak_prompts("The soup was great, but the lid is not good. The fan is red. The cord is nice and ugly.")
    )
    assert [(p.split("aspect term ")[1]) for p in found] == ["soup ? positive", "lid ? negative", "fan ? neutral"]


def test_a_folder_without_text_is_an_error(script: ModuleType, text: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"0 \.txt files and no text"):
        script.pretrain(toy(script), tmp_path, tmp_path / "out")
    with pytest.raises(DataError, match="give more text"):
        script.pretrain(toy(script, length=100_000), text, tmp_path / "out")
