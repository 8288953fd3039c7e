"""Adapters and checkpoints that vLLM would refuse, or serve wrongly without a word."""

from __future__ import annotations

import copy
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from absa_edit.errors import RecordError, SettingsError
from absa_edit.export.folder import write_adapter, write_merged
from absa_edit.export.serving import Served, check_serving
from absa_edit.methods.lora import Lora
from absa_edit.methods.low_rank_edit import Edit

O_PROJ = "model.layers.1.self_attn.o_proj"


@pytest.fixture
def adapter(small, trained, about, tmp_path) -> Path:
    """An adapter of mixed ranks as it is exported."""
    adapted = trained(small)
    write_adapter(adapted, tmp_path / "adapter", about(adapted), "")
    return tmp_path / "adapter"


def only(folder: Path, **options: Any) -> Served:
    (served,) = check_serving(folder, **options)
    return served


def fatal(folder: Path, **options: Any) -> list[str]:
    return [problem.description for problem in only(folder, **options).problems if problem.fatal]


def configure(folder: Path, **fields: object) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def retensor(folder: Path, change) -> None:
    path = folder / "adapter_model.safetensors"
    save_file(change(load_file(path)), path, metadata={"format": "pt"})


@pytest.mark.parametrize("method", [Edit(lr=1e-3), Lora(lr=1e-3, rank=16)], ids=["edit", "lora"])
def test_what_is_exported_can_be_served(small, trained, about, tmp_path, method) -> None:
    adapted = trained(small, method)
    write_adapter(adapted, tmp_path / "a", about(adapted), "")
    served = only(tmp_path / "a")
    assert served.works and not fatal(tmp_path / "a")
    assert f"--enable-lora --max-lora-rank 16 --lora-modules absa={tmp_path / 'a'}" in served.command


def test_a_run_folder_is_checked_whole(small, trained, about, tmp_path) -> None:
    adapted = trained(small)
    write_adapter(adapted, tmp_path / "export/adapter", about(adapted), "")
    write_merged(adapted, small.tokenizer, tmp_path / "export/merged", about(adapted), "")
    one, other = check_serving(tmp_path)
    assert one.works and other.works
    assert other.command.endswith("--dtype float32"), "vLLM would serve float32 weights in 16 bits"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"bias": "lora_only"}, "trained biases"),
        ({"lora_bias": True}, "trained biases"),
        ({"use_dora": True}, "DoRA"),
        ({"modules_to_save": ["score"]}, r"whole modules beside the deltas \(score\)"),
        ({"trainable_token_indices": [1, 2]}, "trained token embeddings"),
        ({"peft_type": "LOHA"}, "peft_type is LOHA"),
        ({"peft_type": "PREFIX_TUNING", "r": None, "target_modules": None}, "peft_type is PREFIX_TUNING"),
        ({"layer_replication": [[0, 2], [1, 3]]}, "layer_replication is set: refused, before 0.32 dropped"),
        ({"use_bdlora": {"nblocks": 2}}, "use_bdlora is set: refused"),
        ({"target_parameters": ["w"]}, "target_parameters is set, and vLLM drops it"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights=pissa moves the base's weights"),
        ({"rank_pattern": {"q_proj": 64}}, "rank 64, and a server"),
        ({"rank_pattern": {"q_proj": 0}}, "rank_pattern holds 0"),
        ({"r": 64}, "rank 64, and a server started with --max-lora-rank 16 refuses it"),
        ({"r": 1024}, "rank 1024, and vLLM stops at 512"),
        ({"r": None}, "r is missing or no positive number"),
        ({"r": 0}, "r is missing or no positive number"),
        ({"target_modules": None}, "target_modules is missing"),
    ],
)
def test_a_config_that_is_refused(adapter, fields, said) -> None:
    configure(adapter, **fields)
    (found,) = [problem for problem in only(adapter).problems if problem.fatal][:1]
    assert re.search(said, found.description)
    assert found.fix and not only(adapter).works


def test_unequal_scaling_is_found_at_its_site(adapter) -> None:
    """peft scales this site by 8 / 2, vLLM by 8 / 4 as all others."""
    retensor(adapter, lambda t: {n: v[:2] if "0.self_attn.o_proj.lora_A" in n else v[:, :2].contiguous()
                                 if "0.self_attn.o_proj.lora_B" in n else v for n, v in t.items()})  # fmt: skip
    configure(adapter, rank_pattern={"model.layers.0.self_attn.o_proj": 2})
    (found,) = fatal(adapter)
    assert found == (
        "model.layers.0.self_attn.o_proj was trained with its delta times 4; vLLM before 0.32 takes 2, silently"
    )
    configure(adapter, alpha_pattern={"layers.0.self_attn.o_proj": 4})
    served = only(adapter)
    assert served.works and any("llama.cpp" in problem.description for problem in served.problems)


def test_rank_limit_is_the_servers(adapter) -> None:
    assert "start it with --max-lora-rank 8" in only(adapter, max_rank=1).problems[0].fix
    assert fatal(adapter, max_rank=1) and not fatal(adapter, max_rank=8)


def test_a_limit_that_no_server_takes_is_refused(adapter) -> None:
    with pytest.raises(SettingsError, match=r"--max-lora-rank 4: .* 1, 8, 16, 32"):
        check_serving(adapter, max_rank=4)


def renamed(old: str, new: str):
    return lambda tensors: {name.replace(old, new): value for name, value in tensors.items()}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (renamed("lora_A.weight", "lora_A.default.weight"), "3 tensors are no LoRA weights"),
        (renamed("base_model.model.", ""), "does not begin with base_model.model."),
        (renamed("base_model.model.", "base_model.model.base_model.model."), "is no module of the base model"),
        (renamed("o_proj", "out_proj"), "out_proj is no module of the base model"),
        (renamed("layers.2", "layers.7"), "layers.7.self_attn.o_proj is no module of the base model"),
        (lambda t: {n: v for n, v in t.items() if "1.mlp.down_proj.lora_B" not in n}, "down_proj has no lora_B"),
        (lambda t: {n: v[:, :5].contiguous() if "lora_A" in n else v for n, v in t.items()}, "the delta is 32 x 5"),
        (lambda t: {n.replace("lora_A.weight", "lora_magnitude_vector"): v for n, v in t.items()}, "DoRA"),
        (lambda t: {}, "no tensor in adapter_model.safetensors"),
    ],
)  # fmt: skip
def test_tensors_that_are_refused_or_passed_over(adapter, change, said) -> None:
    retensor(adapter, change)
    assert any(said in found for found in fatal(adapter))


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_file_that_is_missing_or_broken(adapter, name) -> None:
    (adapter / name).write_bytes(b"{")
    assert any("not JSON" in found or "broken weights" in found for found in fatal(adapter))
    (adapter / name).unlink()
    assert any(f"no {name}" in found for found in fatal(adapter))


def test_a_base_that_is_not_here_is_a_note(small, trained, about, base_folder, tmp_path) -> None:
    adapted = trained(small)
    write_adapter(adapted, tmp_path / "a", about(adapted, base="hub/base"), "")
    notes = [problem.description for problem in only(tmp_path / "a").problems]
    assert any("the base model's files are not here" in note for note in notes)
    notes = [problem.description for problem in only(tmp_path / "a", base=str(base_folder)).problems]
    assert not any("not here" in note for note in notes)


@pytest.mark.parametrize("tiny", ["gpt2", "gpt_neox"], indirect=True)
def test_families_that_vllm_takes_no_adapters_for(tiny, trained, about, tmp_path) -> None:
    tiny.model.save_pretrained(tmp_path / "base")
    adapted = trained(tiny)
    write_adapter(adapted, tmp_path / "a", about(adapted, base=str(tmp_path / "base")), "")
    (problem,) = [p for p in only(tmp_path / "a").problems if "takes no adapters" in p.description]
    name = type(tiny.model).__name__
    assert problem.description.endswith(f"takes no adapters for {name}") and problem.fatal == (
        name == "GPT2LMHeadModel"
    )
    assert fatal(tmp_path / "a") == ([problem.description] if problem.fatal else [])


def test_a_base_that_names_its_weights_without_the_head(small, trained, about, base_folder, tmp_path) -> None:
    shutil.copytree(base_folder, tmp_path / "base")
    path = tmp_path / "base" / "model.safetensors"
    tensors = {name.removeprefix("model."): value for name, value in load_file(path).items()}
    save_file(tensors, path, metadata={"format": "pt"})
    adapted = trained(small)
    write_adapter(adapted, tmp_path / "a", about(adapted, base=str(tmp_path / "base")), "")
    assert not fatal(tmp_path / "a")


@pytest.mark.parametrize("tiny", ["gemma3", "opt", "phi3"], indirect=True)
def test_other_families_can_be_served(tiny, trained, about, tmp_path) -> None:
    tiny.model.save_pretrained(tmp_path / "base")
    adapted = trained(tiny, Lora(lr=1e-3))
    write_adapter(adapted, tmp_path / "a", about(adapted, base=str(tmp_path / "base")), "")
    assert not fatal(tmp_path / "a")


@pytest.mark.parametrize("weights", [True, False])
def test_a_representation_edit_needs_this_package(small, trained, about, tmp_path, weights) -> None:
    adapted = trained(small, Edit(lr=1e-3, weights=weights, representation=True))
    write_adapter(adapted, tmp_path / "a", about(adapted), "")
    (problem,) = only(tmp_path / "a").problems
    assert problem.fatal and "a representation edit acts at the aspect" in problem.description
    assert "merged" not in problem.fix, "it cannot be merged"


def test_peft_itself_makes_what_is_refused(small, base_folder, tmp_path) -> None:
    """Real adapters of peft's, not only edited configs."""
    for number, (options, said) in enumerate([({"use_dora": True}, "DoRA"), ({"bias": "lora_only"}, "trained biases")]):
        config = LoraConfig(r=4, target_modules=[O_PROJ], task_type="CAUSAL_LM", **options)
        peft = get_peft_model(copy.deepcopy(small.model), config)
        peft.save_pretrained(tmp_path / str(number), save_embedding_layers=False)
        assert any(said in found for found in fatal(tmp_path / str(number), base=str(base_folder)))


# ---- merged checkpoints


@pytest.fixture
def checkpoint(small, trained, about, tmp_path) -> Path:
    adapted = trained(small)
    write_merged(adapted, small.tokenizer, tmp_path / "merged", about(adapted), "")
    return tmp_path / "merged"


def test_a_checkpoint_without_its_parts(checkpoint) -> None:
    assert not fatal(checkpoint)
    (checkpoint / "tokenizer.json").rename(checkpoint / "t")
    assert fatal(checkpoint) == ["no tokenizer"]
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps({**config, "architectures": None}))
    assert "config.json names no architecture" in fatal(checkpoint)
    (checkpoint / "model.safetensors").unlink()
    assert any("no model.safetensors" in found for found in fatal(checkpoint))


def test_a_shard_that_is_missing(checkpoint) -> None:
    index = {"metadata": {}, "weight_map": {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps(index))
    assert fatal(checkpoint) == ["no model-00002-of-00002.safetensors (pickled weights are not read)"]


def test_a_checkpoint_saved_unmerged(checkpoint) -> None:
    path = checkpoint / "model.safetensors"
    save_file({**load_file(path), f"{O_PROJ}.lora_A.default.weight": torch.zeros(1)}, path, metadata={"format": "pt"})
    assert any("it was saved unmerged" in found for found in fatal(checkpoint))


def test_half_precision_needs_no_flag(checkpoint) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps({**config, "dtype": "bfloat16"}))
    assert only(checkpoint).problems == () and "--dtype" not in only(checkpoint).command


def test_a_folder_without_an_export_is_an_error(tmp_path) -> None:
    with pytest.raises(RecordError, match="nothing to serve in it"):
        check_serving(tmp_path)
    shutil.rmtree(tmp_path)
    with pytest.raises(RecordError, match="nothing to serve in it"):
        check_serving(tmp_path)
