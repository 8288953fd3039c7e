"""Other ways to trace: the tools that `bench.py trace` measures the exact tracer against.

Each tool runs as its users would run it, at the best setting it offers for this: no gradients, no key-value
cache, clean states computed once where the tool can keep them. All of them run the whole model for every cell,
with the logits of all positions. Needs `pip install -e .[bench]` for all but the first two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from absa_edit.model.architectures import layout
from absa_edit.model.hooks import edited, recorded
from absa_edit.records import Part, Site
from absa_edit.tracing.exact_patching import Cell

Measure = Callable[[Sequence[tuple[Cell, int]]], list[float]]
"""From cells and the token position each restores, to the probability each brings back."""
PARTS = (Part.attn, Part.mlp, Part.block)
"""In the order in which a block computes them."""


@dataclass(frozen=True)
class Workload:
    """One prompt, its corruption and the words its answer is read from."""

    model: PreTrainedModel
    ids: Int[Tensor, "1 pos"]
    noise: Float[Tensor, "sample noised hidden"]
    """Added to the embeddings of the corrupted positions."""
    corrupted: tuple[int, int]
    """First position with noise, and the one after the last."""
    words: tuple[int, int, int]
    """Token ids of the label words, the gold one first."""

    @property
    def span(self) -> slice:
        return slice(*self.corrupted)

    def noisy(self) -> Float[Tensor, "sample pos hidden"]:
        """Input embeddings of the corrupted run."""
        embeds = self.model.get_input_embeddings()(self.ids).repeat(len(self.noise), 1, 1)
        embeds[:, self.span] += self.noise
        return embeds

    def gold(self, logits: Float[Tensor, "sample pos word"]) -> Float[Tensor, ""]:
        """Probability of the gold word among the label words, mean of the samples."""
        return logits[:, -1, list(self.words)].softmax(-1)[:, 0].mean()


class Prepare(Protocol):
    """A peer: does what it can do once for a workload; what it returns is timed."""

    def __call__(self, workload: Workload) -> Measure: ...


def available() -> dict[str, Prepare]:
    """All peers whose library is installed, by name."""
    libraries: dict[str, Prepare] = {"transformer_lens": transformer_lens, "nnsight": nnsight, "pyvene": pyvene}
    installed = {name: peer for name, peer in libraries.items() if find_spec(name)}
    return {"hook_loop": hook_loop, "rome": rome} | installed


@torch.inference_mode()
def hook_loop(workload: Workload) -> Measure:
    """The loop one writes first: clean states kept, and for each cell a forward of the samples with hooks on it."""
    modules, noisy, clean = modules_of(workload.model), workload.noisy(), clean_states(workload)

    def run(cell: Cell, position: int) -> Tensor:
        with ExitStack() as stack:
            for site in restored(cell):
                stack.enter_context(edited(modules[site], put(position, clean[site][position])))
            return workload.model(inputs_embeds=noisy, use_cache=False).logits

    return each(workload, run)


def rome(workload: Workload) -> Measure:
    """ROME's own algorithm, for models other than its GPT-2, GPT-J and GPT-NeoX.

    Each forward has the clean run as its first row, and what it restores is copied from that row on the way.
    Source: `trace_with_patch` of experiments/causal_trace.py in github.com/kmeng01/rome, 0874014.
    """
    model, modules = workload.model, modules_of(workload.model)
    ids = workload.ids.repeat(1 + len(workload.noise), 1)

    def add_noise(embeds: Tensor) -> Tensor:
        embeds[1:, workload.span] += workload.noise
        return embeds

    def run(cell: Cell, position: int) -> Tensor:
        def copy_clean(output: Tensor) -> Tensor:
            output[1:, position] = output[0, position]
            return output

        with ExitStack() as stack:
            stack.enter_context(edited(model.get_input_embeddings(), add_noise))
            for site in restored(cell):
                stack.enter_context(edited(modules[site], copy_clean))
            return model(input_ids=ids, use_cache=False).logits[1:]

    return each(workload, run)


@torch.inference_mode()
def transformer_lens(workload: Workload) -> Measure:
    """TransformerLens 4: its bridge over the same weights, with patching hooks and the clean run's cache.

    Its `patching` module would run the same forwards, but knows neither windows nor noise. `boot_transformers` gives
    the same bridge, at the same speed, but insists on a tokenizer. The bridge replaces submodules, hence the copy.
    """
    from transformer_lens.model_bridge.sources import build_bridge_from_module

    model = deepcopy(workload.model)
    bridge = build_bridge_from_module(model, type(model).__name__, hf_config=model.config)
    hooks = {Part.block: "blocks.{}.hook_out", Part.attn: "blocks.{}.attn.hook_out", Part.mlp: "blocks.{}.mlp.hook_out"}
    names = {site: hooks[site.part].format(site.layer) for site in paths_of(workload.model)}
    _, clean = bridge.run_with_cache(workload.ids, names_filter=list(names.values()))
    ids = workload.ids.repeat(len(workload.noise), 1)

    def add_noise(embeds: Tensor, hook: Any) -> Tensor:
        embeds[:, workload.span] += workload.noise
        return embeds

    def run(cell: Cell, position: int) -> Tensor:
        def put_clean(output: Tensor, hook: Any) -> Tensor:
            output[:, position] = clean[hook.name][:, position]
            return output

        patches = [(names[site], put_clean) for site in restored(cell)]
        return bridge.run_with_hooks(ids, fwd_hooks=[("embed.hook_out", add_noise), *patches], use_cache=False)

    return each(workload, run)


@torch.inference_mode()
def nnsight(workload: Workload) -> Measure:
    """nnsight: a trace for each cell, with clean states saved from one trace.

    Several cells as invokes of one trace would be one larger batch, with as many operations. Wrapping instruments the
    modules for good, hence the copy.
    """
    from nnsight import NNsight, save

    model = NNsight(deepcopy(workload.model))
    noisy, clean = workload.noisy(), {}
    modules = {site: model.get(path) for site, path in paths_of(workload.model).items()}
    with model.trace(input_ids=workload.ids, use_cache=False):
        for site, module in modules.items():
            clean[site] = save(module.output[0])

    def run(cell: Cell, position: int) -> Tensor:
        with model.trace(inputs_embeds=noisy, use_cache=False):
            for site in restored(cell):
                modules[site].output[:, position] = clean[site][position]
            logits = save(model.output.logits)
        return logits

    return each(workload, run)


@torch.inference_mode()
def pyvene(workload: Workload) -> Measure:
    """pyvene with `source_representations`: clean states gathered once.

    Without them, as in its tutorial, it runs one more forward for each layer that a cell restores. A call removes
    all hooks of the model, and wrapping freezes it, hence the copy.
    """
    from pyvene import IntervenableConfig, IntervenableModel, RepresentationConfig, VanillaIntervention

    model = deepcopy(workload.model)
    noisy, clean = workload.noisy(), clean_states(workload)
    components = {Part.block: "block_output", Part.attn: "attention_output", Part.mlp: "mlp_output"}

    @cache
    def intervenable(sites: tuple[Site, ...]) -> IntervenableModel:
        """Positions are given at the call, so that one serves them all."""
        chosen = [RepresentationConfig(site.layer, components[site.part], "pos", 1) for site in sites]
        return IntervenableModel(IntervenableConfig(chosen, VanillaIntervention), model)

    def run(cell: Cell, position: int) -> Tensor:
        sites = tuple(restored(cell))
        sources = [clean[site][position].expand(len(noisy), 1, -1) for site in sites]
        _, output = intervenable(sites)(
            {"inputs_embeds": noisy},
            unit_locations={"sources->base": position},
            source_representations=sources,
            use_cache=False,
        )
        return output.logits

    return each(workload, run)


def each(workload: Workload, run: Callable[[Cell, int], Tensor]) -> Measure:
    """A measure that runs one cell after the other; `run` returns the logits of the samples."""

    @torch.inference_mode()
    def measure(cells: Sequence[tuple[Cell, int]]) -> list[float]:
        return torch.stack([workload.gold(run(cell, position)) for cell, position in cells]).tolist()

    return measure


def restored(cell: Cell) -> Iterator[Site]:
    return (Site(layer, cell.part) for layer in range(cell.start, cell.stop))


def paths_of(model: PreTrainedModel) -> dict[Site, str]:
    """Names of the modules whose output a cell may restore, in the order in which the model calls them."""
    path = layout(model).path
    layers = range(model.config.num_hidden_layers)
    return {site: path(site) for site in (Site(layer, part) for layer in layers for part in PARTS)}


def modules_of(model: PreTrainedModel) -> dict[Site, nn.Module]:
    return {site: model.get_submodule(path) for site, path in paths_of(model).items()}


def clean_states(workload: Workload) -> dict[Site, Float[Tensor, "pos hidden"]]:
    """States of the clean run at all sites."""
    with ExitStack() as stack:
        modules = modules_of(workload.model).items()
        calls = {site: stack.enter_context(recorded(module)) for site, module in modules}
        workload.model(input_ids=workload.ids, use_cache=False)
    return {site: outputs[0][0] for site, outputs in calls.items()}


def put(position: int, state: Float[Tensor, " hidden"]) -> Callable[[Tensor], Tensor]:
    """An edit that puts `state` at `position` of every row."""

    def edit(output: Tensor) -> Tensor:
        output[:, position] = state
        return output

    return edit
