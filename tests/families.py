"""Tiny random models of every family that is tried, and the README's list of them.

`python tests/families.py` writes the list into the README; a test holds that it is there.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
import transformers
from transformers import AutoModelForCausalLM, PreTrainedModel

from absa_edit.model.architectures import layout
from absa_edit.records import Part, Site

SHAPE = {
    "vocab_size": 8192,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
GROUPED = {**SHAPE, "num_key_value_heads": 2}
ENDS = {"bos_token_id": 1, "eos_token_id": 2}
FALCON = {
    "vocab_size": 8192,
    "hidden_size": 32,
    "ffn_hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    **ENDS,
}
CONFIGS = {
    "llama": lambda: transformers.LlamaConfig(**GROUPED),
    "qwen2": lambda: transformers.Qwen2Config(
        **GROUPED, use_sliding_window=True, sliding_window=6, max_window_layers=1
    ),
    "qwen3": lambda: transformers.Qwen3Config(**GROUPED, head_dim=8),
    "mistral": lambda: transformers.MistralConfig(**GROUPED, sliding_window=7),
    "gemma2": lambda: transformers.Gemma2Config(
        **GROUPED,
        head_dim=8,
        query_pre_attn_scalar=8,
        sliding_window=6,
        attn_logit_softcapping=0.5,  # scores here are small: with the usual 50 it would change nothing
        final_logit_softcapping=4.0,
    ),
    "gemma3": lambda: transformers.Gemma3TextConfig(
        **GROUPED,
        head_dim=8,
        sliding_window=6,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
    ),
    "phi3": lambda: transformers.Phi3Config(**GROUPED),
    "olmo2": lambda: transformers.Olmo2Config(**GROUPED),
    "gpt2": lambda: transformers.GPT2Config(
        vocab_size=8192,
        n_embd=32,
        n_layer=3,
        n_head=4,
        n_positions=128,
        bos_token_id=1,
        eos_token_id=2,
    ),
    "gpt_neox": lambda: transformers.GPTNeoXConfig(**SHAPE),
    "opt": lambda: transformers.OPTConfig(
        vocab_size=8192,
        hidden_size=32,
        ffn_dim=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=128,
        word_embed_proj_dim=24,
        pad_token_id=0,
    ),
    "olmo": lambda: transformers.OlmoConfig(**GROUPED, clip_qkv=0.5),  # as OLMo of 2024, which clips in place
    "phi": lambda: transformers.PhiConfig(**SHAPE, partial_rotary_factor=0.5),
    "starcoder2": lambda: transformers.Starcoder2Config(**GROUPED, sliding_window=6),
    "gptj": lambda: transformers.GPTJConfig(
        vocab_size=8192, n_embd=32, n_inner=48, n_layer=3, n_head=4, n_positions=128, rotary_dim=4, **ENDS
    ),
    "gpt_neo": lambda: transformers.GPTNeoConfig(
        vocab_size=8192,
        hidden_size=32,
        intermediate_size=48,
        num_layers=3,
        num_heads=4,
        max_position_embeddings=128,
        window_size=6,
        attention_types=[[["global", "local"], 1], [["local"], 1]],
        **ENDS,
    ),
    "bloom": lambda: transformers.BloomConfig(vocab_size=8192, hidden_size=32, n_layer=3, n_head=4),
    "falcon": lambda: transformers.FalconConfig(
        **FALCON, num_kv_heads=2, new_decoder_architecture=True, num_ln_in_parallel_attn=2
    ),
    "falcon_mqa": lambda: transformers.FalconConfig(**FALCON),  # as Falcon-7B
    "falcon_alibi": lambda: transformers.FalconConfig(**FALCON, alibi=True, multi_query=False, parallel_attn=False),
    "mpt": lambda: transformers.MptConfig(vocab_size=8192, d_model=32, n_layers=3, n_heads=4, max_seq_len=128),
    "mixtral": lambda: transformers.MixtralConfig(**GROUPED, num_local_experts=4, sliding_window=None),
    "qwen2_moe": lambda: transformers.Qwen2MoeConfig(
        **GROUPED, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16, shared_expert_intermediate_size=24
    ),
    "qwen3_moe": lambda: transformers.Qwen3MoeConfig(
        **GROUPED, head_dim=8, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16, mlp_only_layers=[0]
    ),
}
FIRST = ("gemma2", "gemma3", "gpt2", "gpt_neox", "llama", "mistral", "olmo2", "opt", "phi3", "qwen2", "qwen3")
"""Families that every test of families runs on by default; the others where a test is marked `every_family`."""
NAMES = {
    "llama": "Llama (and SmolLM)",
    "qwen2": "Qwen2",
    "qwen3": "Qwen3",
    "mistral": "Mistral",
    "gemma2": "Gemma 2",
    "gemma3": "Gemma 3 (text models)",
    "phi": "Phi-2",
    "phi3": "Phi-3",
    "olmo": "OLMo",
    "olmo2": "OLMo 2",
    "starcoder2": "StarCoder2",
    "gpt2": "GPT-2",
    "gpt_neo": "GPT-Neo",
    "gptj": "GPT-J",
    "gpt_neox": "GPT-NeoX (and Pythia)",
    "opt": "OPT",
    "bloom": "BLOOM",
    "falcon": "Falcon",
    "falcon_mqa": "Falcon",
    "falcon_alibi": "Falcon",
    "mpt": "MPT",
    "mixtral": "Mixtral",
    "qwen2_moe": "Qwen2-MoE",
    "qwen3_moe": "Qwen3-MoE",
}
"""As the README calls them."""
README = Path(__file__).resolve().parents[1] / "README.md"
BEGIN, END = "<!-- families: written by `python tests/families.py` -->", "<!-- /families -->"


def sites_in(model: PreTrainedModel, sites: Iterable[Site]) -> list[Site]:
    """`sites`, in a model of experts with those of an MLP moved to the attention beside it, each once."""
    if layout(model).mlp is not None:
        return list(sites)
    return list(dict.fromkeys(Site(site.layer, Part.attn) if site.part is Part.mlp else site for site in sites))


def readme_list() -> str:
    """Every family with the parts of a block that can be traced and edited in it, as the README lists them."""
    names: dict[bool, dict[str, None]] = {True: {}, False: {}}
    for family, name in NAMES.items():
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(CONFIGS[family]())
        names[layout(model).mlp is not None][name] = None
    return (
        f"- attention, heads and MLP: {', '.join(names[True])}\n"
        f"- attention and heads (experts have no one output projection of an MLP; `trace.parts=[block,attn]\n"
        f"  locate.parts=[attn]`): {', '.join(names[False])}\n"
    )


def between_marks(text: str) -> tuple[str, str, str]:
    """The text before the list, the list, and the text after it."""
    before, _, rest = text.partition(f"{BEGIN}\n")
    inside, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n", inside, f"{END}{after}"


if __name__ == "__main__":
    before, _, after = between_marks(README.read_text(encoding="utf-8"))
    README.write_text(before + readme_list() + after, encoding="utf-8")
