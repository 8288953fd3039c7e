"""A loaded model is tried before it is used: its weights, and a short run that has to answer as its forward does."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from absa_edit.errors import AbsaEditError, ModelError
from absa_edit.model.attention import Heads, Mixed, attention_by, mix
from absa_edit.model.block_runner import BlockRunner
from absa_edit.model.hooks import recorded, silent
from absa_edit.records import Part, Site

log = logging.getLogger(__name__)

TOKENS = 40
"""How many tokens the run has, where the model has positions for as many."""
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4, torch.float16: 0.01, torch.bfloat16: 0.05}
"""What rounding may do, relative to the largest number of what is compared; a bias left out does some tenths."""


def check_weights(model: PreTrainedModel, report: Mapping[str, Any]) -> None:
    """What transformers says of loading, and every number: `report` is that of `output_loading_info`.

    Raises `ModelError` when weights are missing (tied ones are not) or of another shape, when the file has more blocks
    than the configuration, or when a number is not finite; it names the first. Other weights that the model has no
    place for are logged.
    """
    name = type(model).__name__
    if missing := sorted(report["missing_keys"]):
        raise ModelError(
            f"{name}: {len(missing)} weights are not in the file, the first {missing[0]}; expected all of them: get "
            "the checkpoint again, or take a wrapper's prefix off the names that it was saved under"
            + _example(report["unexpected_keys"])
        )
    if mismatched := sorted(report["mismatched_keys"]):
        weight, stored_shape, expected_shape = mismatched[0]
        raise ModelError(
            f"{name}: {len(mismatched)} weights have another shape than config.json says, the first {weight}: "
            f"{[*stored_shape]}, expected {[*expected_shape]}; get weights and config.json of one checkpoint"
        )
    runner = BlockRunner(model)
    if unexpected := sorted(report["unexpected_keys"]):
        of_block = re.compile(rf"(?:^|\.){re.escape(runner.layout.blocks.rpartition('.')[2])}\.(\d+)\.")
        numbers = [int(match[1]) for key in unexpected if (match := of_block.search(key))]
        if (most := max(numbers, default=-1)) >= runner.layers:
            raise ModelError(
                f"{name}: config.json has {runner.layers} blocks, the weights go on to block {most}; a model without "
                "its last blocks would be traced: set num_hidden_layers to that of the weights"
            )
        log.warning("%s: %d weights have no place in the model, the first %s", name, len(unexpected), unexpected[0])
    for weight, values in model.named_parameters():
        if values.dtype in TOLERANCE and not values.is_meta and values.numel() and not _finite(values.detach()):
            raise ModelError(
                f"{name}: {weight} has numbers that are not finite (NaN or infinity); expected none: get the "
                "checkpoint again, or load it in another model.dtype"
            )


@dataclass
class _OwnRun:
    """What the model's own forward leaves behind, by block."""

    entering: list[Tensor] = field(default_factory=list)
    leaving: list[Tensor] = field(default_factory=list)
    pairs: list[bool] = field(default_factory=list)
    """Whether the block returned more than its states."""
    projected: list[dict[Part, Tensor]] = field(default_factory=list)
    """Outputs of the projections of attention and MLP."""
    logits: Tensor = field(default_factory=lambda: torch.empty(0))


@torch.no_grad()
def check_run(model: PreTrainedModel, ids: Sequence[int]) -> None:
    """Holds the block runner and our own attention against the model's own forward on some tokens.

    Of each block are compared the outputs of its projections (largest difference relative to the largest number) and
    its states (the same, in the median over positions: experts may be chosen otherwise after rounding), and of the
    model the logits at the last position; both sides are given what the model's own run has. Ours is run as trees are,
    with the tokens in another order at their own positions, so that whatever mixes positions besides attention is
    found. The last block is also run at the last position alone, and with queries, keys and values that are known,
    as the exact tracer does. What may differ is in `TOLERANCE`.
    Raises `ModelError` which names the first block that differs, and by how much.
    """
    name, runner = type(model).__name__, BlockRunner(model)
    rows = len(runner.embeddings.weight)  # type: ignore[arg-type]
    if max(ids) >= rows:
        raise ModelError(
            f"{name}: the tokenizer gives the token {max(ids)}, the model has embeddings for {rows}; expected a "
            "tokenizer and weights of one checkpoint"
        )
    most = min(TOKENS, runner.positions or TOKENS)
    tokens = torch.tensor([ids[:most]], device=runner.device)
    with _in_one_line(f"{name}: its own forward"):
        reference = _own_run(runner, tokens)
    for layer, pairs in enumerate(reference.pairs):
        if pairs != runner.layout.pairs:
            what = "a tuple" if pairs else "its states alone"
            raise ModelError(
                f"{name}: block {layer} returns {what}, expected {'a tuple' if runner.layout.pairs else 'its states'} "
                "as other models with such module names do; take another model (the README lists families)"
            )
    if not reference.logits.isfinite().all():
        first = next((i for i, states in enumerate(reference.leaving) if not states.isfinite().all()), "none")
        raise ModelError(
            f"{name}: the model answers NaN or infinity (first in block: {first}); its weights are finite, so the "
            "numbers leave the dtype: take model.dtype=bfloat16 or float32"
        )
    _compare(runner, tokens, reference)


def _own_run(runner: BlockRunner, tokens: Int[Tensor, "1 pos"]) -> _OwnRun:
    reference, parts = _OwnRun(), [part for part in (Part.attn, Part.mlp) if runner.has(part)]

    def keep(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        pair = isinstance(output, tuple | list)
        reference.entering.append((args[0] if args else kwargs["hidden_states"]).clone())
        reference.leaving.append((output[0] if pair else output).clone())
        reference.pairs.append(pair)

    with ExitStack() as stack:
        recordings = []
        for layer, block in enumerate(runner.blocks):
            stack.callback(block.register_forward_hook(keep, with_kwargs=True).remove)
            recordings.append(
                {part: stack.enter_context(recorded(runner.module(Site(layer, part)))) for part in parts},
            )
        reference.logits = runner.model(input_ids=tokens, use_cache=False, logits_to_keep=1).logits[:, -1].float()
    if len(reference.leaving) != runner.layers:
        raise ModelError(
            f"{type(runner.model).__name__}: {runner.layers} blocks are called {len(reference.leaving)} times, "
            "expected each once; take another model (the README lists families)"
        )
    for layer, outputs in enumerate(recordings):
        for part, each in outputs.items():
            if len(each) != 1:
                path = runner.path(Site(layer, part))
                raise ModelError(
                    f"{type(runner.model).__name__}: block {layer} calls {path} {len(each)} times, expected once: "
                    "nothing can be restored there; take another model (the README lists families)"
                )
        reference.projected.append({part: each[0] for part, each in outputs.items()})
    return reference


def _compare(runner: BlockRunner, tokens: Int[Tensor, "1 pos"], reference: _OwnRun) -> None:
    length, name = tokens.shape[1], type(runner.model).__name__
    order = torch.arange(length, device=tokens.device).flip(0)
    tolerance = TOLERANCE[reference.leaving[0].dtype]

    def hold(where: str, actual: Tensor, expected: Tensor, *, median: bool = False) -> None:
        by_position = (actual.float() - expected.float()).abs().flatten(0, -2).amax(-1)
        scale = float(expected.float().abs().max())
        difference = float(by_position.median() if median else by_position.max()) / max(scale, 1e-30)
        if not difference <= tolerance:
            raise ModelError(
                f"{name}: {where} differ from the model's own forward by {difference:.2g} of their largest number, "
                f"expected {tolerance:g} at most; take a model of another family (the README lists them), or tell "
                "absa_edit's authors about this one"
            )

    with _in_one_line(f"{name}: what comes before block 0"):
        reach = runner.reach(length)
        inputs = runner.begin(runner.embed(tokens)[:, order], order[None])
        hold("the states that enter block 0", inputs.hidden, reference.entering[0][:, order])
    for layer in range(runner.layers):
        if layer and not torch.equal(reference.entering[layer], reference.leaving[layer - 1]):
            raise ModelError(
                f"{name}: what enters block {layer} is not what leaves block {layer - 1}; expected blocks one after "
                "the other with nothing between them; take another model (the README lists families)"
            )
        allowed, attention_calls = reach[layer][order][:, order], 0
        entering = reference.entering[layer][:, order]

        def attend(heads: Heads, allowed: Bool[Tensor, "query key"] = allowed) -> Mixed:
            nonlocal attention_calls
            attention_calls += 1
            return mix(heads, allowed)

        with _in_one_line(f"{name}: block {layer}"), ExitStack() as stack:
            recordings = {
                part: stack.enter_context(recorded(runner.module(Site(layer, part))))
                for part in reference.projected[layer]
            }
            with attention_by(runner.model, attend):
                leaving = runner.run(entering, layer, layer + 1, inputs)
        if attention_calls != 1:
            raise ModelError(
                f"{name}: block {layer} asks transformers' attention function {attention_calls} times, expected once "
                "(its attention goes round it, or has several): nothing can be restored there; take another model (the "
                "README lists families)"
            )
        for part, outputs in recordings.items():
            rows = reference.projected[layer][part].view((*leaving.shape[:-1], -1))[:, order]
            hold(f"block {layer}: the outputs of its {part.value}", outputs[0].view_as(rows), rows)
        hold(f"block {layer}: the states that leave it", leaving, reference.leaving[layer][:, order], median=True)
    last = runner.layers - 1
    with _in_one_line(f"{name}: block {last} at the last position alone"):
        here = torch.zeros(1, 1, dtype=torch.long, device=tokens.device)  # the last token stands first
        states = runner.run_at(last, entering, here, inputs, lambda heads: mix(heads, allowed[:1]))[:, 0]
    if runner.has(Part.mlp):  # after rounding a token may go to other experts
        hold(
            f"block {last}: the states that leave it at the last position alone", states, reference.leaving[last][:, -1]
        )
    with _in_one_line(f"{name}: block {last} with queries, keys and values that are known"), ExitStack() as stack:
        known = runner.asks(last, entering, inputs)
        stack.enter_context(silent(runner.blocks[last], runner.layout.asking))
        stack.enter_context(attention_by(runner.model, lambda _: mix(known, allowed)))
        states = runner.run(entering, last, last + 1, inputs)
    where = f"block {last}: the states that leave it with queries, keys and values that are known"
    hold(where, states, reference.leaving[last][:, order], median=True)
    with _in_one_line(f"{name}: what comes after block {last}"):
        hold("the logits of the last position", runner.logits(reference.leaving[last][:, -1]), reference.logits)


@contextmanager
def _in_one_line(what: str) -> Iterator[None]:
    """Whatever goes wrong inside, as a `ModelError` of one line; memory that is not enough is not the model's fault."""
    try:
        yield
    except (AbsaEditError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        message = (str(error).strip().splitlines() or [""])[0]
        raise ModelError(
            f"{what} does not run here: {type(error).__name__}: {message}; take a model of another family (the README "
            "lists them)"
        ) from error


def _example(keys: Iterable[str]) -> str:
    first = min(keys, default=None)
    return "" if first is None else f" (the file has {first})"


def _finite(values: Tensor) -> bool:
    """Without a copy of the values: both ends carry a NaN."""
    return all(bool(end.isfinite()) for end in values.aminmax())
