"""Loading the bundled model, a folder, and what cannot be loaded."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers

from absa_edit.errors import ModelError
from absa_edit.model.loading import choose_device, load_model, reviewlm, slug
from absa_edit.model.settings import ModelSettings


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
    config = transformers.BloomConfig(vocab_size=50, hidden_size=16, n_layer=1, n_head=2)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="no known family"):
        load_model(ModelSettings(name=str(tmp_path), device="cpu"))


def test_a_model_on_several_devices_is_refused(small, monkeypatch) -> None:
    def spread(*_: object, **options: object) -> transformers.PreTrainedModel:
        assert options["device_map"] == "auto"
        small.model.hf_device_map = {"model.layers.0": 0, "model.layers.1": 1, "lm_head": "cpu"}
        return small.model

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


def test_every_family_loads_from_a_folder(tiny, tmp_path) -> None:
    """Gemma 2 has no sdpa attention, so the default must leave the choice to transformers."""
    tiny.model.save_pretrained(tmp_path)
    tiny.tokenizer.save_pretrained(tmp_path)
    loaded = load_model(ModelSettings(name=str(tmp_path), device="cpu"))
    ids = torch.tensor([[1, 300, 301]])
    with torch.no_grad():
        torch.testing.assert_close(loaded.model(ids).logits, tiny.model(ids).logits)
    assert loaded.summary().layers == 3
