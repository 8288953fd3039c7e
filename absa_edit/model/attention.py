"""A model's own blocks with the attention between positions done by someone else.

Between its projections a block of nearly any family calls one function with queries, keys and values. Inside
`attention_by` that function is ours, so that a run can bring the keys and values of positions that it does
not compute, and no family's block is written again. The others are in `absa_edit.model.attention_adapters`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import repeat
from typing import Any, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

from absa_edit.errors import ModelError
from absa_edit.model.attention_adapters import asking

NAME = "absa_edit"

Keys = Float[Tensor, "_ kv_head _ width"]
"""Keys or values: row, key-value head, position, width."""


@dataclass(frozen=True)
class Heads:
    """What a block asks its attention; `query` has a multiple of the heads of `key` (grouped-query attention)."""

    query: Float[Tensor, "row head query width"]
    key: Keys
    value: Keys
    scale: float
    softcap: float | None


Mixed = Float[Tensor, "row head query width"]
"""Each head's answer: values weighted by attention."""

Attend = Callable[[Heads], Mixed]

_attend: list[Attend] = []

HARMLESS = frozenset(
    {
        "dropout",  # what is trained drops nothing between positions
        "sliding_window",  # `BlockRunner.reach` says what a position sees, whatever made it so
        "is_causal",
        "position_ids",  # queries and keys are turned before they come here
        "use_cache",
        "output_attentions",
        "output_hidden_states",
        "output_router_logits",
        "return_dict",
    }
)
"""What families tell their attention besides scale and softcap that changes nothing of what is computed here."""


def _dispatch(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    softcap: float | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """What transformers calls for attention. Raises `ModelError` for an argument whose meaning is not known here."""
    for name, given in others.items():
        if name not in HARMLESS and not (given is None or (isinstance(given, int | float) and not given)):
            layer = getattr(module, "layer_idx", "?")
            raise ModelError(
                f"block {layer}: {type(module).__name__} gives its attention `{name}`, which is not known here and "
                "would be left out of the scores; take a model of another family (the README has a list)"
            )
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return _attend[-1](Heads(query, key, value, scale, softcap)).transpose(1, 2), None


@contextmanager
def implementation(model: PreTrainedModel, name: str) -> Iterator[None]:
    """The model with another attention function inside the block."""
    before = model.config._attn_implementation
    model.config._attn_implementation = name
    try:
        yield
    finally:
        model.config._attn_implementation = before


@contextmanager
def attention_by(model: PreTrainedModel, attend: Attend) -> Iterator[None]:
    """Every attention of the model is `attend`'s inside the block. Masks are its business too."""
    AttentionInterface.register(NAME, _dispatch)
    _attend.append(attend)
    try:
        with implementation(model, NAME), asking(model, _ask):
            yield
    finally:
        _attend.pop()


def _ask(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    return _attend[-1](Heads(query, key, value, scale, None))


def is_ours(model: PreTrainedModel) -> bool:
    """Whether the model is inside `attention_by`."""
    return bool(model.config._attn_implementation == NAME)


def asked(model: PreTrainedModel, run: Callable[[], object]) -> Heads:
    """What the first attention in `run` is asked; nothing after that is computed."""
    attention_inputs: list[Heads] = []

    def keep(heads: Heads) -> Mixed:
        attention_inputs.append(heads)
        raise _Enough

    with suppress(_Enough), attention_by(model, keep):
        run()
    if not attention_inputs:
        raise ModelError(f"{type(model).__name__}: its attention goes round transformers' attention interface")
    return attention_inputs[0]


class _Enough(Exception):
    """Leaves a block once its queries, keys and values are known."""


def mix(heads: Heads, allowed: Bool[Tensor, "*row query key"] | None, before: tuple[Keys, Keys] | None = None) -> Mixed:
    """Attention over the keys of `before` followed by the heads' own.

    The rows of `before`, repeated as a whole, are those of `heads`; they are not copied for that. (Three cells of two
    samples are the rows (cell 0, sample 0), (0, 1), (1, 0), ...: row r asks the keys `before[r % 2]`, then its own.)
    `allowed` has a column for each key, those of `before` first, and may differ from row to row ([row, 1, 1, query,
    key]); None allows all.

    Under autocast on a CPU the products are float32: of matrices as small as these oneDNN's in bfloat16 are slower than
    MKL's, and the casts come on top.
    """
    if heads.query.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
        with torch.autocast("cpu", enabled=False):
            query, key, value = heads.query.float(), heads.key.float(), heads.value.float()
            known = before and (before[0].float(), before[1].float())
            return mix(Heads(query, key, value, heads.scale, heads.softcap), allowed, known)
    rows, count, queries, width = heads.query.shape
    groups = heads.key.shape[1]
    query = (heads.query * heads.scale).reshape(rows, groups, -1, width)
    scores = query @ heads.key.transpose(-1, -2)
    if before is not None:
        keys, values = before
        samples = len(keys)
        folded = query.view(-1, samples, groups, query.shape[2], width).permute(1, 2, 0, 3, 4)
        flat = folded.reshape(samples, groups, -1, width) @ keys.transpose(-1, -2)
        early = flat.view(*folded.shape[:-1], -1).permute(2, 0, 1, 3, 4).reshape(*scores.shape[:-1], -1)
        scores = torch.cat((early, scores), -1)
    if heads.softcap is not None:
        scores = heads.softcap * torch.tanh(scores / heads.softcap)
    if allowed is not None:
        scores = (
            scores.view(rows, groups, -1, queries, scores.shape[-1])
            .masked_fill(~allowed, float("-inf"))
            .view(scores.shape)
        )
    weights = scores.softmax(-1, dtype=torch.float32).to(query.dtype)
    if before is None:
        return (weights @ heads.value).view(rows, count, queries, width)
    early, own_weights = weights.split((keys.shape[2], heads.key.shape[2]), -1)
    folded = early.reshape(-1, samples, groups, *early.shape[2:]).permute(1, 2, 0, 3, 4)
    flat = folded.reshape(samples, groups, -1, early.shape[-1]) @ values
    past = flat.view(*folded.shape[:-1], width).permute(2, 0, 1, 3, 4).reshape(rows, groups, -1, width)
    return cast(Tensor, past.add(own_weights @ heads.value).reshape(rows, count, queries, width))


CACHED = 2**20
"""Scores that `mix_after` works on at once on a CPU."""


def mix_after(heads: Heads, allowed: Bool[Tensor, "*row query key"], before: tuple[Keys, Keys]) -> Mixed:
    """As `mix`, for a long `before` of one row, and without gradients; `allowed` may be of the keys in `heads` alone.

    Both parts are mixed on their own and weighed by their sums of exponentials, so that the many scores of the first
    are written once and worked on in place; on a CPU, of so few rows at once that they stay in its cache.
    """
    rows, count, queries, width = heads.query.shape
    groups, early = heads.key.shape[1], before[0].shape[2]
    together = max(1, CACHED // (count * queries * early))
    if heads.query.device.type == "cpu" and together < rows:
        masks = allowed.split(together) if allowed.ndim > 2 else repeat(allowed)
        chunks = zip(*(x.split(together) for x in (heads.query, heads.key, heads.value)), masks, strict=False)
        return torch.cat(
            [mix_after(Heads(q, k, v, heads.scale, heads.softcap), mask, before) for q, k, v, mask in chunks]
        )

    def part(query: Tensor, keys: Tensor, values: Tensor, seen: Tensor | None) -> list[Tensor]:
        """The largest score, the sum of exponentials and the values that these mix; [group, row, head query, ..]."""
        scores = (query @ keys.transpose(-1, -2)).float()
        if heads.softcap is not None:
            scores.div_(heads.softcap).tanh_().mul_(heads.softcap)
        if seen is not None:
            scores.view(groups, rows, -1, queries, scores.shape[-1]).masked_fill_(~seen, float("-inf"))
        largest = scores.amax(-1, keepdim=True).clamp_min_(torch.finfo(scores.dtype).min)  # where nothing is seen
        scores.sub_(largest).exp_()
        parts = largest, scores.sum(-1, keepdim=True), (scores.to(values.dtype) @ values).float()
        return [each.view(groups, rows, -1, each.shape[-1]) for each in parts]

    query = (heads.query * heads.scale).reshape(rows, groups, -1, width).transpose(0, 1)
    allowed = allowed[:, 0] if allowed.ndim > 2 else allowed
    before_late = allowed.shape[-1] - heads.key.shape[2]
    past_seen = allowed[..., :before_late] if before_late else None
    past = part(query.reshape(groups, -1, width), before[0][0], before[1][0], past_seen)
    late = part(query, heads.key.transpose(0, 1), heads.value.transpose(0, 1), allowed[..., before_late:])
    largest = torch.maximum(past[0], late[0])
    early_share, late_share = ((each[0] - largest).exp_() for each in (past, late))
    total, mixed = (past[k] * early_share + late[k] * late_share for k in (1, 2))
    return (mixed / total).transpose(0, 1).reshape(rows, count, queries, width).to(heads.query.dtype)
