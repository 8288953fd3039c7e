"""Models of random weights: only their shapes count for what they cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers import AutoModelForCausalLM, Gemma3TextConfig, LlamaConfig, PreTrainedConfig, PreTrainedModel

SHAPES: dict[str, tuple[Callable[..., PreTrainedConfig], dict[str, Any]]] = {
    "llama": (
        LlamaConfig,
        {
            "vocab_size": 32_000, "hidden_size": 512, "intermediate_size": 1376, "num_hidden_layers": 12,
            "num_attention_heads": 8, "max_position_embeddings": 512,
        },
    ),
    "smollm2_135m": (
        LlamaConfig,
        {
            "vocab_size": 49_152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
            "num_attention_heads": 9, "num_key_value_heads": 3, "max_position_embeddings": 8192,
            "tie_word_embeddings": True,
        },
    ),
    "gemma3_270m": (
        Gemma3TextConfig,
        {
            "vocab_size": 262_144, "hidden_size": 640, "intermediate_size": 2048, "num_hidden_layers": 18,
            "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 256, "query_pre_attn_scalar": 256,
            "sliding_window": 512, "max_position_embeddings": 32768, "tie_word_embeddings": True,
        },
    ),
}  # fmt: skip
"""The configuration of each shape, by name: a small Llama, SmolLM2 135M and Gemma 3 270M."""


def random_model(shape: str, **changed: Any) -> PreTrainedModel:
    """A frozen float32 model of that shape, fields of its configuration changed; the same weights each time."""
    kind, fields = SHAPES[shape]
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(kind(**{**fields, **changed}))
    return model.eval().requires_grad_(False)
