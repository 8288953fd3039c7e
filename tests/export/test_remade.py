"""Methods that add parts to the model: exported as settings, plan and trained parameters, and made again of these."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from exported import MIXED
from huggingface_hub import ModelCard
from runs import execute, small_run
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import absa_edit
from absa_edit.context import Context
from absa_edit.errors import CannotMerge, ExportMismatch, RecordError
from absa_edit.export.folder import merged
from absa_edit.export.serving import check_serving
from absa_edit.inference.classifier import Classifier, load
from absa_edit.methods.adapted_model import AdaptedModel
from absa_edit.methods.base import Method, method
from absa_edit.methods.settings import METHODS, LocatedSettings, MethodSettings
from absa_edit.model.block_runner import BlockRunner
from absa_edit.model.loading import load_model
from absa_edit.model.settings import ModelSettings
from absa_edit.records import EditPlan
from absa_edit.tasks.absc import ABSC


@dataclass
class Shifts(LocatedSettings):
    lr: float = 1e-2
    strength: float = 1.0


def shifted(block: nn.Module, strength: float) -> None:
    """A trained shift of the states that leave a block."""
    block.shift = nn.Parameter(torch.zeros(len(block.input_layernorm.weight)))

    def hook(module: nn.Module, _: object, hidden: Tensor) -> Tensor:
        return hidden + strength * module.shift

    block.register_forward_hook(hook)


@pytest.fixture
def shifts() -> Iterator[None]:
    """A method that no checkpoint and no adapter of PEFT's can hold."""
    before = {name: METHODS[name] for name in METHODS}

    @method("shifts")
    class BlockShifts(Method):
        settings = Shifts
        needs_plan = True
        adds_parts = True

        def apply(self, ctx: Context, plan: EditPlan | None, settings: MethodSettings) -> AdaptedModel:
            assert plan is not None and isinstance(settings, Shifts)
            runner = BlockRunner(ctx.copy_of_model())
            for layer in plan.layers():
                shifted(runner.blocks[layer], settings.strength)
            lr = {"weights": settings.lr}
            return AdaptedModel(self.name, runner.model, plan=plan, lr=lr, start=min(plan.layers()))

    yield
    METHODS._found = before


def answers(classifier: Classifier, examples) -> np.ndarray:
    return np.array([list(row.values()) for row in classifier.answer(examples)])


@pytest.fixture
def made(shifts, base_folder, trained) -> Classifier:
    """A trained one, in memory."""
    lm = load_model(ModelSettings(name=str(base_folder), device="cpu"))
    return Classifier(lm, trained(lm, Shifts(strength=3.0)), ABSC.prompt(), ABSC)


def test_it_is_made_again_by_its_settings_plan_and_weights(made, tmp_path, examples) -> None:
    made.save(tmp_path / "mine")
    about = json.loads((tmp_path / "mine" / "absa_edit.json").read_text())
    assert (about["kind"], about["settings"]) == (
        "shifts",
        {"lr": 1e-2, "scale": False, "locate": None, "strength": 3.0},
    )
    assert about["files"] == ["weights.safetensors", "edit_plan.json"]
    assert len(load_file(tmp_path / "mine" / "weights.safetensors")) == len(MIXED)
    again = absa_edit.load(tmp_path / "mine", device="cpu")
    np.testing.assert_allclose(answers(again, examples), answers(made, examples), atol=1e-6)
    assert again.adapted.plan == made.adapted.plan
    base = Classifier(made.lm, AdaptedModel("base", made.lm.model), made.prompt, ABSC)
    assert np.abs(answers(made, examples) - answers(base, examples)).max() > 1e-2
    again.save(tmp_path / "again")
    np.testing.assert_allclose(
        answers(load(tmp_path / "again", device="cpu"), examples), answers(made, examples), atol=1e-6
    )


def test_the_folder_says_who_reads_it(made, tmp_path) -> None:
    made.save(tmp_path / "mine")
    card = ModelCard.load(tmp_path / "mine" / "README.md")
    assert card.data.library_name == "absa_edit" and "`absa_edit.load` alone puts back" in card.text
    assert "from_pretrained" not in card.text
    (served,) = check_serving(tmp_path / "mine")
    assert not served.works and "vLLM has no place for" in served.problems[0].description
    with pytest.raises(CannotMerge, match="what shifts adds to the model is none of its weights"):
        merged(made.adapted)


@pytest.mark.parametrize("gone", ["weights.safetensors", "edit_plan.json"])
def test_half_a_copy_is_an_error(made, tmp_path, gone) -> None:
    made.save(tmp_path / "mine")
    (tmp_path / "mine" / gone).unlink()
    with pytest.raises(RecordError, match=rf"no {gone} in it; copy the whole folder"):
        load(tmp_path / "mine", device="cpu")


def test_weights_of_another_shape_or_cut_short_are_an_error(made, tmp_path) -> None:
    made.save(tmp_path / "mine")
    path = tmp_path / "mine" / "weights.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:90])
    with pytest.raises(RecordError, match="its weights cannot be read"):
        load(tmp_path / "mine", device="cpu")
    path.write_bytes(content)
    save_file({name: tensor[:3].clone() for name, tensor in load_file(path).items()}, path)
    with pytest.raises(RecordError, match="do not fit this base model"):
        load(tmp_path / "mine", device="cpu")


def test_a_method_that_is_not_registered_here_is_named(made, tmp_path) -> None:
    made.save(tmp_path / "mine")
    METHODS._found = {name: METHODS[name] for name in METHODS if name != "shifts"}
    with pytest.raises(RecordError, match="made by the method shifts, which is not there; import the file"):
        load(tmp_path / "mine", device="cpu")


def test_settings_that_the_method_does_not_know_are_an_error(made, tmp_path) -> None:
    made.save(tmp_path / "mine")
    file = tmp_path / "mine" / "absa_edit.json"
    about = json.loads(file.read_text())
    file.write_text(json.dumps({**about, "settings": {**about["settings"], "strength": "wide"}}))
    with pytest.raises(RecordError, match=r"mine is not a Shifts: strength: "):
        load(tmp_path / "mine", device="cpu")


def test_a_run_exports_and_proves_it(shifts, tmp_path: Path, monkeypatch) -> None:
    chosen = small_run(tmp_path / "out", method={"shifts": Shifts()})
    run, record, _ = execute(chosen)
    export = record.export
    assert export and (export.adapter, export.merged, export.agreement) == ("export/adapter", None, 1.0)
    assert export.not_merged == "what shifts adds to the model is none of its weights"
    loaded = absa_edit.load(run.folder)
    rows = [json.loads(row) for row in (run.folder / "methods/shifts/predictions.jsonl").read_text().splitlines()]
    found = answers(loaded, [e for test in run.splits.tests for e in test.examples])
    np.testing.assert_allclose(found, [list(row["probabilities"].values()) for row in rows], atol=1e-5)

    def tampered(path: Path) -> dict[str, Tensor]:
        return {name: tensor + 3.0 for name, tensor in load_file(path).items()}

    monkeypatch.setattr("absa_edit.export.remade.load_file", tampered)
    with pytest.raises(ExportMismatch):
        execute(chosen)
