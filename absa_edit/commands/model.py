"""Say what a model is made of, and whether it can be traced and edited.

    absa-edit model show reviewlm
    absa-edit model show Qwen/Qwen2.5-0.5B
    absa-edit model show outputs/laptop14/reviewlm/seed0/export/merged --dtype bfloat16

The model is loaded as a run does it. Exit code 0 when that works, 1 when it does not.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from absa_edit.errors import ModelError
from absa_edit.model.settings import ModelSettings

if TYPE_CHECKING:
    from absa_edit.model.loading import LanguageModel


def main(arguments: Sequence[str], _: Path) -> int:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("absa-edit model", description=__doc__, formatter_class=raw)
    actions = parser.add_subparsers(metavar="show", required=True)
    show = actions.add_parser("show", help="family, layers, widths, heads, parameters, what is traceable")
    show.add_argument("name", help="reviewlm, a folder or a hub id")
    show.add_argument("--dtype", default="float32", help="float32, bfloat16 or float16 (default: float32)")
    show.add_argument("--device", default="cpu", help="cpu, cuda, auto (default: cpu)")
    show.add_argument("--revision", help="of a hub model: a commit, branch or tag")
    chosen = parser.parse_args(arguments)
    from absa_edit.model.loading import load_model

    settings = ModelSettings(name=chosen.name, dtype=chosen.dtype, device=chosen.device, revision=chosen.revision)
    try:
        entries = facts(load_model(settings))
    except ModelError as error:
        entries = {"model": chosen.name, "loads": f"no: {error}"}
    console = Console(soft_wrap=True)
    for name, text in entries.items():
        console.print(Text(f"{name:<12}", style="bold") + Text(text, style="not bold"))
    return 0 if entries["loads"] == "yes" else 1


def facts(lm: LanguageModel) -> dict[str, str]:
    """What there is to tell of a loaded model, in the order of telling."""
    from absa_edit.records import Part, Site

    config, runner, summary = lm.model.config, lm.runner, lm.summary()
    paths, experts = runner.layout, not runner.has(Part.mlp)
    _, states = runner.shape(Site(0, Part.attn))
    inner = "of experts" if experts else f"{runner.shape(Site(0, Part.mlp))[0]:,}"
    heads = config.num_attention_heads
    shared = getattr(config, "num_key_value_heads", None) or heads
    return {
        "model": lm.source,
        "family": f"{config.model_type} ({type(lm.model).__name__})",
        "layers": f"{summary.layers}",
        "widths": f"states {states:,}, MLP {inner}, vocabulary {config.vocab_size:,}",
        "heads": f"{heads} of queries, {shared} of keys and values",
        "parameters": f"{summary.parameters:,} in {summary.dtype}",
        "loads": "yes",
        "traceable": "blocks, attention and heads" if experts else "blocks, attention, MLPs and heads",
        "blocks": f"{paths.blocks}.*",
        "attention": f"{paths.blocks}.*.{paths.attn}",
    } | ({} if experts else {"MLPs": f"{paths.blocks}.*.{paths.mlp}"})
