"""Loading the bundled model, a folder, and what cannot be loaded."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from conftest import tiny_model
from families import GROUPED
from safetensors.torch import load_file, save_file

from absa_edit.errors import ModelError
from absa_edit.model.loading import LanguageModel, choose_device, load_model, slug
from absa_edit.model.settings import ModelSettings
from absa_edit.model.sources import reviewlm


def test_bundled_model_is_ready_to_trace(bundled) -> None:
    assert not bundled.model.training
    assert not any(p.requires_grad for p in bundled.model.parameters())
    summary = bundled.summary()
    assert (summary.name, summary.dtype) == ("reviewlm", "float32")
    assert summary.layers == bundled.model.config.num_hidden_layers
    assert summary.parameters == sum(p.numel() for p in bundled.model.parameters())
    assert summary.sha256 == hashlib.sha256((reviewlm() / "model.safetensors").read_bytes()).hexdigest()


def test_a_folder_loads_in_the_dtype_asked_for(small, tmp_path) -> None:
    folder = tmp_path / "mine"
    small.model.save_pretrained(folder)
    small.tokenizer.save_pretrained(folder)
    lm = load_model(ModelSettings(name=str(folder), dtype="bfloat16", device="cpu"))
    assert lm.name == "mine"
    assert lm.model.dtype is torch.bfloat16
    weight = small.model.model.layers[0].mlp.down_proj.weight
    assert torch.equal(lm.model.model.layers[0].mlp.down_proj.weight, weight.bfloat16())


def test_a_folders_other_files_are_part_of_what_it_is(small, tmp_path) -> None:
    small.model.save_pretrained(tmp_path)
    small.tokenizer.save_pretrained(tmp_path)
    before = load_model(ModelSettings(name=str(tmp_path), device="cpu"))
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace('"rms_norm_eps": 1e-06', '"rms_norm_eps": 0.1'))
    after = load_model(ModelSettings(name=str(tmp_path), device="cpu"))
    assert before.sha256 == after.sha256 and before.model.config.rms_norm_eps != after.model.config.rms_norm_eps
    assert before.files_sha256 and before.files_sha256 != after.files_sha256


@pytest.mark.parametrize("name", ["no/such-model-anywhere", "/no/such/folder"])
def test_a_missing_model_is_an_error_that_names_it(name, monkeypatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=rf"model\.name={name}: .*safetensors"):
        load_model(ModelSettings(name=name, device="cpu"))


def test_a_folder_without_safetensors_is_an_error(small, tmp_path) -> None:
    small.model.save_pretrained(tmp_path)
    small.tokenizer.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "weights.bin")
    with pytest.raises(ModelError, match=r"model\.name="):
        load_model(ModelSettings(name=str(tmp_path), device="cpu"))


def test_an_unknown_family_is_an_error(tokenizer, tmp_path) -> None:
    config = transformers.CTRLConfig(vocab_size=8192, n_embd=16, dff=16, n_layer=1, n_head=2)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="no known family"):
        load_model(ModelSettings(name=str(tmp_path), device="cpu"))


def test_a_model_on_several_devices_is_refused(small, monkeypatch) -> None:
    def spread(*_: object, **options: object) -> tuple[transformers.PreTrainedModel, dict[str, list]]:
        assert options["device_map"] == "auto"
        small.model.hf_device_map = {"model.layers.0": 0, "model.layers.1": 1, "lm_head": "cpu"}
        return small.model, {}

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", spread)
    try:
        with pytest.raises(ModelError, match=r"model\.device_map=auto spreads .* \['0', '1'\].*CUDA_VISIBLE_DEVICES"):
            load_model(ModelSettings(name="reviewlm", device_map="auto"))
    finally:
        del small.model.hf_device_map


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_cuda_without_a_number_is_a_device() -> None:
    assert load_model(ModelSettings(name="reviewlm", device="cuda")).model.device.type == "cuda"


COMMIT = "c0ffee" + 34 * "0"


def test_a_hub_model_is_known_by_its_commit(small, tmp_path, monkeypatch) -> None:
    """As it lies in the hub's cache, here without a connection."""
    snapshot = tmp_path / "models--org--tiny" / "snapshots" / COMMIT
    small.model.save_pretrained(snapshot)
    small.tokenizer.save_pretrained(snapshot)
    (tmp_path / "models--org--tiny" / "refs").mkdir()
    (tmp_path / "models--org--tiny" / "refs" / "main").write_text(COMMIT)
    code = (
        "from absa_edit.model.settings import ModelSettings; from absa_edit.model.loading import load_model\n"
        "lm = load_model(ModelSettings(name='org/tiny', device='cpu')); print(lm.sha256, lm.settings().revision)"
    )
    environ = {**os.environ, "HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, timeout=100)
    assert done.stdout.split() == [COMMIT, COMMIT], done.stderr


def test_devices() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(ModelError, match=r"model\.device=banana"):
        choose_device("banana")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu_is_an_error_that_says_so() -> None:
    with pytest.raises(ModelError, match=r"model\.device=cuda:1: .*use cpu or auto"):
        choose_device("cuda:1")


@pytest.mark.parametrize(
    ("name", "short"), [("Qwen/Qwen2.5-0.5B", "Qwen2.5-0.5B"), ("reviewlm", "reviewlm"), ("/models/llama/", "llama")]
)
def test_short_name(name, short) -> None:
    assert slug(name) == short


def test_bundled_folder_is_in_the_package() -> None:
    assert isinstance(reviewlm(), Path)
    assert (reviewlm() / "tokenizer.json").is_file()


@pytest.mark.every_family
def test_every_family_loads_from_a_folder(tiny, tmp_path) -> None:
    """Gemma 2 has no sdpa attention, so the default must leave the choice to transformers. Each is checked by a run."""
    tiny.model.save_pretrained(tmp_path)
    tiny.tokenizer.save_pretrained(tmp_path)
    loaded = load_model(ModelSettings(name=str(tmp_path), device="cpu"))
    ids = torch.tensor([[1, 300, 301]])
    with torch.no_grad():
        torch.testing.assert_close(loaded.model(ids).logits, tiny.model(ids).logits)
    assert loaded.summary().layers == 3


@pytest.fixture
def folder(small, tmp_path) -> Path:
    small.model.save_pretrained(tmp_path)
    small.tokenizer.save_pretrained(tmp_path)
    return tmp_path


def loaded(folder: Path, **settings: object) -> LanguageModel:
    return load_model(ModelSettings(name=str(folder), device="cpu", **settings))


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    file = folder / "model.safetensors"
    save_file(change(load_file(file)), file, metadata={"format": "pt"})


def change_config(folder: Path, **values: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_missing_weights_stop_the_load(folder) -> None:
    change_weights(folder, lambda weights: {n: w for n, w in weights.items() if "layers.2." not in n})
    with pytest.raises(ModelError, match=r"LlamaForCausalLM: 9 weights are not in the file.*layers\.2\.input"):
        loaded(folder)


def test_weights_under_a_prefix_stop_the_load(folder) -> None:
    change_weights(folder, lambda weights: {f"wrapped.{n}" if "embed" not in n else n: w for n, w in weights.items()})
    with pytest.raises(ModelError, match=r"29 weights are not in the file.*prefix.*the file has wrapped\."):
        loaded(folder)


def test_tied_weights_are_not_missing(tokenizer, tmp_path) -> None:
    config = transformers.LlamaConfig(**GROUPED, tie_word_embeddings=True)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")
    assert loaded(tmp_path).model.lm_head.weight is not None


def test_more_blocks_than_config_says_stop_the_load(folder) -> None:
    change_config(folder, num_hidden_layers=2)
    with pytest.raises(ModelError, match=r"config\.json has 2 blocks, the weights go on to block 2"):
        loaded(folder)


def test_fewer_blocks_than_config_says_stop_the_load(folder) -> None:
    change_config(folder, num_hidden_layers=4)
    with pytest.raises(ModelError, match=r"9 weights are not in the file.*layers\.3\."):
        loaded(folder)


def test_weights_of_another_shape_stop_the_load(folder) -> None:
    change_weights(folder, lambda weights: weights | {"model.layers.1.mlp.up_proj.weight": torch.zeros(5, 32)})
    with pytest.raises(ModelError, match=r"layers\.1\.mlp\.up_proj\.weight: \[5, 32\], expected \[48, 32\]"):
        loaded(folder)


def test_other_weights_are_logged(folder, caplog) -> None:
    change_weights(folder, lambda weights: weights | {"value_head.weight": torch.zeros(2)})
    assert loaded(folder).model.num_parameters()
    assert "1 weights have no place in the model, the first value_head.weight" in caplog.text


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_stop_the_load(folder, value) -> None:
    name = "model.layers.1.mlp.down_proj.weight"

    def change(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        weights[name][0, 0] = value
        return weights

    change_weights(folder, change)
    with pytest.raises(ModelError, match=rf"{re.escape(name)} has numbers that are not finite"):
        loaded(folder)


def test_a_tokenizer_of_another_model_stops_the_load(folder) -> None:
    change_config(folder, vocab_size=60)
    change_weights(folder, lambda weights: {n: w[:60].clone() if len(w) == 8192 else w for n, w in weights.items()})
    with pytest.raises(ModelError, match=r"tokenizer gives the token \d+, the model has embeddings for 60"):
        loaded(folder)


def test_an_adapter_is_no_model(folder) -> None:
    (folder / "config.json").unlink()
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "org/base"}')
    with pytest.raises(ModelError, match=r"an adapter of org/base.*export/merged.*absa_edit\.load"):
        loaded(folder)


def test_a_file_is_no_model(tmp_path) -> None:
    other = tmp_path / "config.json"
    other.write_text("{}")
    with pytest.raises(ModelError, match=r"config\.json: a file; expected a folder"):
        loaded(other)


def test_falcon_with_alibi_is_not_run_by_the_attention_that_adds_it_twice(tokenizer, tmp_path) -> None:
    model = tiny_model("falcon_alibi", tokenizer).model
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert loaded(tmp_path).model.config._attn_implementation == "sdpa"
