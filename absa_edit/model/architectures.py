"""The one place that knows where each model family keeps its blocks and output projections."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel

from absa_edit.errors import ModelError
from absa_edit.records import Part, Site


@dataclass(frozen=True)
class Layout:
    """Dotted module paths of one family: the blocks, and inside a block its projections."""

    blocks: str
    attn: str
    """Output projection of the attention."""
    mlp: str
    """Output projection of the MLP."""
    asking: tuple[str, ...]
    """Projections to queries, keys and values, that to queries first; a single one where they are fused."""

    def path(self, site: Site) -> str:
        """Dotted path of the module whose output is `site`'s state (for attn and mlp, its projection)."""
        inner = {
            Part.block: "",
            Part.attn: f".{self.attn}",
            Part.head: f".{self.attn}",
            Part.mlp: f".{self.mlp}",
        }
        return f"{self.blocks}.{site.layer}{inner[site.part]}"


_SEPARATE = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")

LAYOUTS = (
    Layout("model.layers", "self_attn.o_proj", "mlp.down_proj", _SEPARATE),  # Llama, Qwen, Mistral, Gemma, OLMo, SmolLM
    Layout("model.layers", "self_attn.o_proj", "mlp.down_proj", ("self_attn.qkv_proj",)),  # Phi-3
    Layout("transformer.h", "attn.c_proj", "mlp.c_proj", ("attn.c_attn",)),  # GPT-2
    Layout("gpt_neox.layers", "attention.dense", "mlp.dense_4h_to_h", ("attention.query_key_value",)),  # Pythia
    Layout("model.decoder.layers", "self_attn.out_proj", "fc2", _SEPARATE),  # OPT
)


def layout(model: PreTrainedModel) -> Layout:
    """The layout that fits `model`.

    Raises `ModelError` when none does.
    """
    modules = {name for name, _ in model.named_modules()}
    for candidate in LAYOUTS:
        inside = (f"{candidate.blocks}.0.{path}" for path in (candidate.attn, candidate.mlp, *candidate.asking))
        if modules.issuperset(inside):
            return candidate
    known = ", ".join(f"{c.blocks}.*.{c.attn}" for c in LAYOUTS)
    raise ModelError(
        f"{type(model).__name__}: no known family (looked for {known}); "
        "add its module paths to LAYOUTS in absa_edit/lm/sites.py"
    )


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
