"""GGUF files as models: what they become, that it is kept, and what is no such file."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from absa_edit.errors import ModelError
from absa_edit.model.known import PACKAGED
from absa_edit.model.loading import LanguageModel, load_model
from absa_edit.model.settings import ModelSettings
from absa_edit.model.sources import reviewlm

NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
"""Tensors of a Llama by the names that llama.cpp gives them."""


def permuted(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of queries or keys in the order of llama.cpp's rotary embedding."""
    return weight.reshape(heads, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)


def write_gguf(
    path: Path, lm: LanguageModel, kind: str = "F32", architecture: str = "llama", without: str | None = None
) -> None:
    """`lm`, a Llama with the bundled tokenizer, as a GGUF file; matrices of type `kind`, `without` one tensor."""
    config = lm.model.config
    heads, shared = config.num_attention_heads, config.num_key_value_heads
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_file_type({"F32": 0, "Q8_0": 7, "Q4_1": 3}[kind])
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(heads)
    writer.add_head_count_kv(shared)
    writer.add_key_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    model = json.loads((reviewlm() / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(sorted(model["vocab"], key=model["vocab"].get))
    writer.add_token_types([3] * 4 + [1] * (len(model["vocab"]) - 4))
    writer.add_token_merges([" ".join(pair) for pair in model["merges"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(True)
    quantised = gguf.GGMLQuantizationType[kind]

    def add(name: str, weight: np.ndarray) -> None:
        if name == without:
            return None
        if weight.ndim == 1 or weight.shape[1] % 32 or kind == "F32":  # whole blocks alone are quantised
            return writer.add_tensor(name, weight)
        writer.add_tensor(name, gguf.quants.quantize(weight, quantised), raw_dtype=quantised)

    for name, tensor in lm.model.state_dict().items():
        weight = tensor.float().numpy()
        if name == "model.embed_tokens.weight":
            add("token_embd.weight", weight)
        elif name == "lm_head.weight":
            add("output.weight", weight)
        elif name == "model.norm.weight":
            add("output_norm.weight", weight)
        else:
            _, _, layer, rest = name.split(".", 3)
            stem = rest.removesuffix(".weight")
            if stem.endswith(("q_proj", "k_proj")):
                weight = permuted(weight, heads if stem.endswith("q_proj") else shared)
            add(f"blk.{layer}.{NAMES[stem]}.weight", weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ABSA_EDIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models"


def loaded(name: Path | str, **settings: object) -> LanguageModel:
    return load_model(ModelSettings(name=str(name), device="cpu", **settings))


def logits(lm: LanguageModel) -> torch.Tensor:
    with torch.no_grad():
        return lm.model(torch.tensor([[1, 40, 900, 77, 3001]])).logits


def test_an_unquantised_file_is_the_model_it_was_made_of(small, tmp_path, cache, monkeypatch) -> None:
    file = tmp_path / "tiny.F32.gguf"
    write_gguf(file, small)
    lm = loaded(file)
    assert torch.allclose(logits(lm), logits(small), atol=1e-4)
    text = "The fan never stops, and it's 65 dollars."
    assert lm.tokenizer(text)["input_ids"] == small.tokenizer(text)["input_ids"]
    assert (lm.name, lm.weights) == ("tiny.F32", "dequantised from F32")
    (folder,) = cache.iterdir()  # nothing half-made beside it
    assert lm.source == str(folder) and "quantization_config" not in json.loads((folder / "config.json").read_text())

    def fails(*_: object, **__: object) -> None:
        raise AssertionError("dequantised again")

    monkeypatch.setattr("absa_edit.model.gguf.dequantise", fails)
    assert loaded(file).sha256 == lm.sha256
    assert loaded(tmp_path, gguf="tiny.F32.gguf").sha256 == lm.sha256
    assert loaded(folder).weights == "dequantised from F32"


def test_quantised_weights_are_those_that_the_file_stands_for(small, tmp_path, cache) -> None:
    file = tmp_path / "tiny.gguf"
    write_gguf(file, small, "Q8_0")
    lm = loaded(file)
    assert lm.weights == "dequantised from Q8_0"
    weight = small.model.model.layers[0].mlp.gate_proj.weight.numpy()
    right = gguf.quants.dequantize(
        gguf.quants.quantize(weight, gguf.GGMLQuantizationType.Q8_0), gguf.GGMLQuantizationType.Q8_0
    )
    (folder,) = cache.iterdir()
    kept = load_file(folder / "model.safetensors")["model.layers.0.mlp.gate_proj.weight"]
    assert np.array_equal(kept.numpy(), right) and not np.array_equal(right, weight)


def test_another_file_under_the_same_name_is_another_model(small, tmp_path, cache) -> None:
    file = tmp_path / "tiny.gguf"
    write_gguf(file, small)
    first = loaded(file)
    write_gguf(file, small, "Q8_0")
    assert loaded(file).sha256 != first.sha256 and len(list(cache.iterdir())) == 2


@pytest.mark.parametrize("left", [0, 3, 40, 0.3, 0.99])
def test_a_cut_file_is_told_in_one_line(small, tmp_path, cache, left) -> None:
    file = tmp_path / "cut.gguf"
    write_gguf(file, small)
    content = file.read_bytes()
    file.write_bytes(content[: int(left if left >= 1 else left * len(content))])
    with pytest.raises(ModelError, match=r"cut\.gguf: not a whole GGUF file .*download it again") as told:
        loaded(file)
    assert "\n" not in str(told.value) and not cache.exists()


def test_a_file_that_lacks_a_tensor_is_no_model_with_random_weights(small, tmp_path, cache) -> None:
    file = tmp_path / "holes.gguf"
    write_gguf(file, small, without="blk.1.ffn_up.weight")
    with pytest.raises(ModelError, match=r"layers\.1\.mlp\.up_proj\.weight"):
        loaded(file)
    assert not cache.exists() or not list(cache.iterdir())


def test_an_architecture_that_transformers_cannot_read_is_named(small, tmp_path, cache) -> None:
    file = tmp_path / "odd.gguf"
    write_gguf(file, small, architecture="rwkv7")
    with pytest.raises(ModelError, match=r"cannot read this GGUF of architecture 'rwkv7'.*safetensors or a hub id"):
        loaded(file)
    assert not cache.exists() or not list(cache.iterdir())


def test_a_folder_of_gguf_files_asks_which(small, tmp_path) -> None:
    write_gguf(tmp_path / "a.gguf", small)
    with pytest.raises(ModelError, match=r"a folder of GGUF files; say which one, e\.g\. model\.gguf=a\.gguf"):
        loaded(tmp_path)
    with pytest.raises(ModelError, match=r"model\.gguf=b\.gguf: no such file in .* \(GGUF files there: a\.gguf\)"):
        loaded(tmp_path, gguf="b.gguf")


def test_a_model_that_was_not_fetched_says_the_command() -> None:
    for name, command in (("smollm2_135m_q4", "fetch smollm2_135m_q4`"), ("gemma3_270m_q4", "_q4 --accept-terms`")):
        assert name in PACKAGED
        with pytest.raises(ModelError, match=f"not fetched yet; `absa-edit model .*{command}"):
            loaded(name)
