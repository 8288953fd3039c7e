"""Families whose attention does not go through transformers' attention interface, and how each is made to ask ours.

GPT-J and GPT-Neo compute attention in a method of their own; BLOOM, Falcon and MPT in the middle of `forward`, with a
bias of the key's distance (ALiBi) on the scores. While `attention_by` is on, the method named here is replaced by one
that makes the same projections and asks for the rest. This is the one place that knows these families' attention.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import dropout, pad
from transformers import PreTrainedModel

Ask = Callable[[Tensor, Tensor, Tensor, float], Tensor]
"""Queries, keys, values (row, head, position, width) and the scale of the scores; the values mixed for each query."""


@dataclass(frozen=True)
class Adapter:
    """How the attention of a family asks for its mixed values."""

    method: str
    """The method of the attention module that `stand_in` takes the place of."""
    stand_in: Callable[..., tuple[Tensor, None]]
    """Called with an `Ask`, the module, and the method's own arguments."""
    bias_keyword: str = ""
    """The block's argument that carries the bias of positions, where the family has one."""
    bias: Callable[[PreTrainedModel, int], Float[Tensor, "pos head"] | None] = lambda model, length: None
    """What is added to the scores of a key by its position; None without such a bias."""
    window: Callable[[nn.Module], int | None] = lambda module: None
    """How many positions a position sees, itself included, where the mask that the model makes does not say it."""


def _gpt_j(ask: Ask, module: Any, query: Tensor, key: Tensor, value: Tensor, *_: Any) -> tuple[Tensor, None]:
    """Scores are float32 in a half precision model, too, as they are in the family's own method."""
    return ask(query.float(), key.float(), value.float(), 1 / module.scale_attn).to(value.dtype), None


def _gpt_neo(ask: Ask, module: Any, query: Tensor, key: Tensor, value: Tensor, *_: Any) -> tuple[Tensor, None]:
    """As GPT-J's, with scores that are not scaled."""
    return ask(query.float(), key.float(), value.float(), 1.0).to(value.dtype), None


def _gpt_neo_window(module: Any) -> int | None:
    return module.config.window_size if module.attention_type == "local" else None


def _bloom(
    ask: Ask, module: Any, hidden_states: Tensor, residual: Tensor, *, alibi: Tensor, **_: Any
) -> tuple[Tensor, None]:
    query, key, value = module._reshape(module.query_key_value(hidden_states))
    out = module.dense(_merged(_biased(ask, query, key, value, module.inv_norm_factor, alibi)))
    return residual + dropout(out, module.hidden_dropout, module.training), None


def _falcon(
    ask: Ask,
    module: Any,
    hidden_states: Tensor,
    *,
    alibi: Tensor | None,
    position_embeddings: tuple[Tensor, Tensor],
    **_: Any,
) -> tuple[Tensor, None]:
    split = module._split_heads(module.query_key_value(hidden_states))
    query, key, value = (states.transpose(1, 2) for states in split)
    if alibi is not None:
        mixed = _biased(ask, query, key, value, module.inv_norm_factor, alibi)
    else:
        from transformers.models.falcon import modeling_falcon  # dear to import, and there by now

        query, key = modeling_falcon.apply_rotary_pos_emb(query, key, *position_embeddings)
        mixed = ask(query, key, value, module.inv_norm_factor)
    return module.dense(_merged(mixed)), None


def _mpt(ask: Ask, module: Any, hidden_states: Tensor, *, position_bias: Tensor, **_: Any) -> tuple[Tensor, None]:
    projected = module.Wqkv(hidden_states)
    if module.clip_qkv:
        projected = projected.clamp(min=-module.clip_qkv, max=module.clip_qkv)
    query, key, value = (x.unflatten(-1, (module.n_heads, -1)).transpose(1, 2) for x in projected.chunk(3, dim=2))
    return module.out_proj(_merged(_biased(ask, query, key, value, module.softmax_scale, position_bias))), None


def _merged(mixed: Float[Tensor, "row head query width"]) -> Float[Tensor, "row query inputs"]:
    return mixed.transpose(1, 2).flatten(2)


def _biased(
    ask: Ask,
    query: Float[Tensor, "row head query width"],
    key: Float[Tensor, "row kv_head query width"],
    value: Float[Tensor, "row kv_head query width"],
    scale: float,
    bias: Float[Tensor, "one query head"],
) -> Float[Tensor, "row head query width"]:
    """Attention with `bias[key] - bias[query]` on the scores, carried by further columns of queries and keys.

    So keys that are kept for later bring their bias along, whoever asks. Only the keys' part matters to the softmax;
    with the queries' part, scores of near keys are small and keep their digits where products are rounded to bfloat16.
    Each part is in three columns that bfloat16 holds exactly (24 bits); two empty ones make them eight.
    """
    heads, width = query.shape[1], query.shape[-1]
    columns, rest = [], bias.float().transpose(1, 2).expand(len(query), -1, -1)
    for _ in range(3):
        columns.append(rest.bfloat16().float())
        rest = rest - columns[-1]
    of_key = torch.stack(columns, -1).to(query.dtype)
    ones = torch.ones_like(of_key)
    query = pad(torch.cat((query * scale, ones, -of_key), -1), (0, 2))
    key = pad(torch.cat((key.expand(-1, heads, -1, -1), of_key, ones), -1), (0, 2))
    return ask(query, key, pad(value.expand(-1, heads, -1, -1), (0, 8)), 1.0)[..., :width]


def _bloom_bias(model: Any, length: int) -> Tensor:
    """In the model's dtype, as the model itself rounds it."""
    attention_mask = torch.ones(1, length, device=model.device, dtype=torch.long)
    return cast(Tensor, model.transformer.build_alibi_tensor(attention_mask, model.config.n_head, model.dtype)[:, 0].T)


def _falcon_bias(model: Any, length: int) -> Tensor | None:
    if not model.config.alibi:
        return None
    from transformers.models.falcon import modeling_falcon

    attention_mask = torch.ones(1, length, device=model.device, dtype=torch.long)
    heads = model.config.num_attention_heads
    slopes = modeling_falcon.build_alibi_tensor(attention_mask, heads, model.dtype)[:, 0].T
    return cast("Tensor | None", slopes.float() * (model.config.hidden_size // heads) ** -0.5)


def _mpt_bias(model: Any, length: int) -> Tensor:
    """Counted from the first position; the model counts from the last, which differs from run to run."""
    bias = model.transformer.build_mpt_alibi_tensor(model.config.n_heads, length, device=model.device)[:, 0].T
    return cast(Tensor, bias - bias[:1])


ADAPTERS = {
    "GPTJAttention": Adapter("_attn", _gpt_j),
    "GPTNeoSelfAttention": Adapter(
        "_attn",
        _gpt_neo,
        window=_gpt_neo_window,
    ),
    "BloomAttention": Adapter("forward", _bloom, "alibi", _bloom_bias),
    "FalconAttention": Adapter("forward", _falcon, "alibi", _falcon_bias),
    "MptAttention": Adapter("forward", _mpt, "position_bias", _mpt_bias),
}
"""By the class of the attention module."""

_found: WeakKeyDictionary[PreTrainedModel, list[tuple[nn.Module, Adapter]]] = WeakKeyDictionary()


def adapted(model: PreTrainedModel) -> list[tuple[nn.Module, Adapter]]:
    """The attention modules of `model` that need an adapter, in order of block; looked for once per model."""
    if model not in _found:
        named = ((module, ADAPTERS.get(type(module).__name__)) for module in model.modules())
        _found[model] = [(module, adapter) for module, adapter in named if adapter]
    return _found[model]


@contextmanager
def asking(model: PreTrainedModel, ask: Ask) -> Iterator[None]:
    """The attention modules that need an adapter ask `ask` inside the block."""
    before = [(module, adapter.method, vars(module).get(adapter.method)) for module, adapter in adapted(model)]
    for module, adapter in adapted(model):
        vars(module)[adapter.method] = partial(adapter.stand_in, ask, module)
    try:
        yield
    finally:
        for module, method, previous in before:
            if previous is None:
                del vars(module)[method]
            else:
                vars(module)[method] = previous


def window_mask(length: int, window: int, device: torch.device) -> Bool[Tensor, "1 1 query key"]:
    """What each position sees, itself included: the last `window` positions."""
    all_pairs = torch.ones(1, 1, length, length, dtype=torch.bool, device=device)
    return all_pairs.tril() & ~all_pairs.tril(-window)
