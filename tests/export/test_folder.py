"""Exports in plain peft and plain transformers, and folders that are whole or absent."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from absa_edit.export.folder import describe, merged, whole_folder, write_adapter, write_merged
from absa_edit.localizers.plan import read_plan
from absa_edit.methods.adapted_model import AdaptedModel
from absa_edit.methods.delta import Delta
from absa_edit.methods.full import Full
from absa_edit.methods.lora import Lora
from absa_edit.methods.low_rank_edit import Edit
from absa_edit.model.loading import LanguageModel
from absa_edit.model.settings import ModelSettings
from absa_edit.records import EditPlan, Part, Site, Target
from absa_edit.storage import load
from absa_edit.tasks.absc import ABSC

IDS = torch.randint(3, 8192, (2, 15), generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def logits(model: torch.nn.Module) -> torch.Tensor:
    return model(input_ids=IDS).logits


def write(adapted: AdaptedModel, lm: LanguageModel, folder: Path, kind: str) -> Path:
    about = describe(adapted, ModelSettings(name="hub/base", revision="main"), lm.sha256, ABSC.prompt(), ABSC)
    if kind == "adapter":
        write_adapter(adapted, folder, about, "# card\n")
    else:
        write_merged(adapted, lm.tokenizer, folder, about, "# card\n")
    return folder


def test_adapter_loads_in_plain_peft(tiny, trained, tmp_path) -> None:
    check_adapter(tiny, trained(tiny), tmp_path)


@pytest.mark.parametrize("tiny", ["llama", "gpt2"], indirect=True)
def test_an_edit_of_heads_loads_in_plain_peft(tiny, trained, tmp_path) -> None:
    heads = tuple(Target(Site(layer, Part.head, index), 2) for layer, index in ((0, 1), (1, 0), (1, 3)))
    check_adapter(tiny, trained(tiny, None, heads), tmp_path)


@pytest.mark.parametrize("tiny", ["llama", "gpt2"], indirect=True)
def test_lora_adapter_loads_in_plain_peft(tiny, trained, tmp_path) -> None:
    check_adapter(tiny, trained(tiny, Lora(lr=1e-3)), tmp_path)


def check_adapter(tiny: LanguageModel, adapted: AdaptedModel, tmp_path: Path) -> None:
    folder = write(adapted, tiny, tmp_path / "adapter", "adapter")
    plain = PeftModel.from_pretrained(copy.deepcopy(tiny.model), folder).eval()
    torch.testing.assert_close(logits(plain), logits(adapted.model), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(logits(plain), logits(tiny.model), atol=0.1)
    assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == "hub/base"


def test_merged_loads_in_plain_transformers(tiny, trained, tmp_path) -> None:
    check_merged(tiny, trained(tiny), tmp_path)


@pytest.mark.parametrize("tiny", ["gemma2", "gpt2"], indirect=True)
@pytest.mark.parametrize("method", [Delta(lr=1e-3), Lora(lr=1e-3), Full(lr=1e-3)], ids=["delta", "lora", "full"])
def test_other_methods_merge_too(tiny, trained, tmp_path, method) -> None:
    check_merged(tiny, trained(tiny, method), tmp_path)


def check_merged(tiny: LanguageModel, adapted: AdaptedModel, tmp_path: Path) -> None:
    expected = logits(adapted.model)
    folder = write(adapted, tiny, tmp_path / "merged", "merged")
    plain = AutoModelForCausalLM.from_pretrained(folder).eval()
    scale = float(expected.abs().max())
    torch.testing.assert_close(logits(plain) / scale, expected / scale, atol=1e-5, rtol=0)
    assert not any("lora" in name for name, _ in plain.named_parameters())
    assert AutoTokenizer.from_pretrained(folder)("a fan").input_ids == tiny.tokenizer("a fan").input_ids
    torch.testing.assert_close(logits(adapted.model), expected)  # the model in memory stays as it was


def test_merging_sums_in_float32_and_casts_once(small, trained) -> None:
    half = LanguageModel("half", "half", copy.deepcopy(small.model).bfloat16(), small.tokenizer, "0")
    adapted = trained(half)
    whole = merged(adapted)
    layer = adapted.model.model.layers[1].mlp.down_proj
    base, found = layer.base_layer.weight, whole.model.layers[1].mlp.down_proj.weight
    delta = layer.lora_B["default"].weight.float() @ layer.lora_A["default"].weight.float() * layer.scaling["default"]
    assert whole.dtype is torch.bfloat16
    assert torch.equal(found, (base.float() + delta).bfloat16())
    assert not torch.equal(found, base + delta.bfloat16()), "rounding twice is something else"


@pytest.mark.parametrize("rslora", [False, True])
def test_mixed_ranks_are_written_as_one(small, trained, tmp_path, rslora) -> None:
    """peft alone reads patterns: vLLM drops them, llama.cpp divides alpha by each tensor's own rank."""
    adapted = trained(small, Edit(lr=1e-3, alpha=6.0, rslora=rslora))
    assert adapted.peft.peft_config["default"].rank_pattern, "the fixture's ranks differ"
    folder = write(adapted, small, tmp_path / "adapter", "adapter")
    config = json.loads((folder / "adapter_config.json").read_text())
    tensors = load_file(folder / "adapter_model.safetensors")
    assert (config["r"], config["rank_pattern"], config["alpha_pattern"]) == (4, {}, {})
    assert {t.shape[0 if "lora_A" in name else 1] for name, t in tensors.items()} == {4}
    assert config["use_rslora"] is rslora and not config["use_dora"]
    assert config["bias"] == "none" and not config["modules_to_save"]
    # every delta by hand at the one scale alpha / r, or alpha / sqrt(r), is the model in memory
    scale = config["lora_alpha"] / (math.sqrt(config["r"]) if rslora else config["r"])
    model = copy.deepcopy(small.model)
    with torch.no_grad():
        for name, a in tensors.items():
            if name.endswith("lora_A.weight"):
                b = tensors[name.replace("lora_A", "lora_B")]
                path = name.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
                model.get_submodule(path).weight += scale * b @ a
    torch.testing.assert_close(logits(model), logits(adapted.model), atol=1e-4, rtol=1e-4)


def test_folder_holds_the_plan_the_card_and_the_prompt(small, trained, tmp_path) -> None:
    for kind in ("adapter", "merged"):
        folder = write(trained(small), small, tmp_path / kind, kind)
        assert (folder / "README.md").read_text() == "# card\n"
        plan = load(EditPlan, folder / "edit_plan.json")
        assert [str(t.site) for t in plan.targets] == ["attn@0", "mlp@1", "attn@2"]
        assert read_plan(str(folder / "edit_plan.json"), small.runner).parameters > 0
        about = json.loads((folder / "absa_edit.json").read_text())
        assert about["prompt"]["labels"] == ["positive", "negative", "neutral"]
        assert (about["kind"], about["base"], about["representation"]) == ("edit", "hub/base", None)
        assert (about["base_sha256"], about["revision"]) == (small.sha256, "main")
        assert folder.stat().st_mode & 0o777 == 0o755
    assert sorted(p.name for p in tmp_path.iterdir()) == ["adapter", "merged"]


def test_adapter_weights_hold_the_deltas_only(small, trained, tmp_path) -> None:
    adapted = trained(small)
    tensors = load_file(write(adapted, small, tmp_path / "a", "adapter") / "adapter_model.safetensors")
    assert len(tensors) == 6 and all("lora_" in name for name in tensors)
    assert sum(int((t != 0).sum()) for t in tensors.values()) == adapted.count()


def test_a_half_written_folder_never_replaces_the_old_one(small, trained, tmp_path, monkeypatch) -> None:
    folder = write(trained(small), small, tmp_path / "adapter", "adapter")
    before = {p.name: p.read_bytes() for p in folder.iterdir()}

    def power_cut(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("absa_edit.export.folder.write_json", power_cut)
    other = trained(small, targets=(Target(Site(1, Part.attn), 2),))
    for kind in ("adapter", "merged"):
        with pytest.raises(OSError, match="no space"):
            write(other, small, tmp_path / "adapter", kind)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    assert [p.name for p in tmp_path.iterdir()] == ["adapter"]


def test_a_new_folder_takes_the_place_of_the_old_one_whole(tmp_path) -> None:
    for name in ("old", "new"):
        with whole_folder(tmp_path / "deep" / "f") as temporary:
            (temporary / name).write_text(name)
    assert [p.name for p in (tmp_path / "deep" / "f").iterdir()] == ["new"]
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["f"]


def test_first_write_that_fails_leaves_nothing(tmp_path) -> None:
    with pytest.raises(KeyError), whole_folder(tmp_path / "f"):
        raise KeyError
    assert not list(tmp_path.iterdir())
