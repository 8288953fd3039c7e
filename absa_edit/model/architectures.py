"""The one place that knows where each model family keeps its blocks and output projections."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn
from transformers import PreTrainedModel

from absa_edit.errors import ModelError, PlanError
from absa_edit.records import Part, Site


@dataclass(frozen=True)
class Layout:
    """Dotted module paths of one family: the blocks, and inside a block its projections."""

    blocks: str
    attn: str
    """Output projection of the attention."""
    mlp: str | None
    """Output projection of the MLP; None where some block has no single one (a bank of experts)."""
    asking: tuple[str, ...]
    """Projections to queries, keys and values, that to queries first; a single one where they are fused."""
    pairs: bool = False
    """Whether blocks return a tuple that begins with their states, and not the states alone."""
    positions: str | None = None
    """The setting of the configuration that says how many positions the family's table has, where there is one."""
    without_mlp: int | None = None
    """The first block without a single MLP projection, where `mlp` is None."""

    def path(self, site: Site) -> str:
        """Dotted path of the module whose output is `site`'s state (for attn and mlp, its projection).

        Raises `PlanError` for an MLP that has no single output projection.
        """
        if site.part is Part.block:
            return f"{self.blocks}.{site.layer}"
        inner = self.mlp if site.part is Part.mlp else self.attn
        if inner is None:
            raise PlanError(
                f"{site}: block {self.without_mlp} has no single output projection of an MLP (experts have one each), "
                "so that mlp can be neither traced nor edited; take trace.parts=[block,attn] and locate.parts=[attn]"
            )
        return f"{self.blocks}.{site.layer}.{inner}"


def _separate(attention: str) -> tuple[str, ...]:
    return tuple(f"{attention}.{name}_proj" for name in "qkv")


LAYOUTS = (
    # Llama, Qwen, Mistral, Gemma, OLMo, SmolLM; without mlp, Mixtral, Qwen2-MoE, Qwen3-MoE
    Layout("model.layers", "self_attn.o_proj", "mlp.down_proj", _separate("self_attn")),
    Layout("model.layers", "self_attn.o_proj", "mlp.c_proj", _separate("self_attn")),  # StarCoder2
    Layout("model.layers", "self_attn.o_proj", "mlp.down_proj", ("self_attn.qkv_proj",)),  # Phi-3
    Layout("model.layers", "self_attn.dense", "mlp.fc2", _separate("self_attn")),  # Phi-2
    Layout(
        "transformer.h", "attn.c_proj", "mlp.c_proj", ("attn.c_attn",), positions="max_position_embeddings"
    ),  # GPT-2
    Layout("gpt_neox.layers", "attention.dense", "mlp.dense_4h_to_h", ("attention.query_key_value",)),  # Pythia
    Layout(
        "model.decoder.layers", "self_attn.out_proj", "fc2", _separate("self_attn"), positions="max_position_embeddings"
    ),  # OPT
    Layout(
        "transformer.h",
        "attn.out_proj",
        "mlp.fc_out",
        _separate("attn"),
        pairs=True,
        positions="max_position_embeddings",
    ),  # GPT-J
    Layout(
        "transformer.h",
        "attn.attention.out_proj",
        "mlp.c_proj",
        _separate("attn.attention"),
        pairs=True,
        positions="max_position_embeddings",
    ),  # GPT-Neo
    Layout(
        "transformer.h", "self_attention.dense", "mlp.dense_4h_to_h", ("self_attention.query_key_value",), pairs=True
    ),  # BLOOM, Falcon
    Layout(
        "transformer.blocks", "attn.out_proj", "ffn.down_proj", ("attn.Wqkv",), pairs=True, positions="max_seq_len"
    ),  # MPT
)


_known: WeakKeyDictionary[PreTrainedModel, Layout] = WeakKeyDictionary()


def layout(model: PreTrainedModel) -> Layout:
    """The layout that fits every block of `model`, but for its mlp where that fits no layout; looked for once.

    Raises `ModelError` when none does; it names the first block that does not fit.
    """
    if model not in _known:
        _known[model] = _layout(model)
    return _known[model]


def _layout(model: PreTrainedModel) -> Layout:
    candidates = [
        (candidate, [*block_list])
        for candidate in LAYOUTS
        if (block_list := _module(model, candidate.blocks)) is not None
    ]
    for candidate, blocks in candidates:
        if not any(_lacking(block, candidate.attn, candidate.mlp, *candidate.asking) for block in blocks):
            return candidate
    lacking = [
        [_lacking(block, candidate.attn, *candidate.asking) for block in blocks] for candidate, blocks in candidates
    ]
    for (candidate, blocks), paths in zip(candidates, lacking, strict=True):
        if not any(paths):
            first = next(i for i, block in enumerate(blocks) if _lacking(block, candidate.mlp))
            return replace(candidate, mlp=None, without_mlp=first)
    name = type(model).__name__
    for paths in lacking:
        if not all(paths):  # other blocks are of this family
            number = next(i for i, path in enumerate(paths) if path)
            raise ModelError(
                f"{name}: block {number} has no {paths[number]}, as block {paths.index(None)} has; expected blocks of "
                "one kind with softmax attention in each; take another model (the README lists families)"
            )
    known = ", ".join(dict.fromkeys(f"{candidate.blocks}.*.{candidate.attn}" for candidate in LAYOUTS))
    raise ModelError(
        f"{name}: no known family (looked for {known}); "
        "add its module paths to LAYOUTS in absa_edit/model/architectures.py"
    )


def _lacking(block: nn.Module, *paths: str | None) -> str | None:
    """The first of some dotted paths that `block` has no module at."""
    return next((path for path in paths if path is not None and _module(block, path) is None), None)


def _module(root: nn.Module, path: str) -> Any:
    """The module at a dotted path; None where there is none."""
    module: Any = root
    for name in path.split("."):
        module = getattr(module, "_modules", {}).get(name)
    return module


def output_width(projection: nn.Module) -> tuple[int, int]:
    """Inputs and outputs of a linear module, either orientation (GPT-2's Conv1D keeps its weight transposed)."""
    rows, columns = projection.weight.shape  # type: ignore[misc]
    return (rows, columns) if type(projection).__name__ == "Conv1D" else (columns, rows)


def site_inputs(model: PreTrainedModel, site: Site) -> slice:
    """The inputs of `site`'s projection that it stands for: all, or those that one head fills."""
    inputs, _ = output_width(model.get_submodule(layout(model).path(site)))
    if site.index is None:
        return slice(0, inputs)
    width = inputs // model.config.num_attention_heads
    return slice(site.index * width, (site.index + 1) * width)


def site_shape(model: PreTrainedModel, site: Site) -> tuple[int, int]:
    """Inputs and outputs of the part of its projection's weight that `site` stands for."""
    inputs, outputs = output_width(model.get_submodule(layout(model).path(site)))
    return inputs if site.index is None else inputs // model.config.num_attention_heads, outputs
