"""The tracer against a plain hook loop that restores one cell at a time, and its identities."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from math import inf

import numpy as np
import pytest
import torch
from families import CONFIGS, FIRST
from torch import Tensor
from torch.nn.functional import pad

from absa_edit.api import example
from absa_edit.data.prompts import Prompt, counterfactual, encode
from absa_edit.errors import DataError
from absa_edit.model.block_runner import BlockRunner
from absa_edit.model.hooks import edited, entering, recorded
from absa_edit.model.loading import LanguageModel
from absa_edit.model.settings import Dtype
from absa_edit.records import Part, Role, Site, Trace, TraceCounts
from absa_edit.tasks.absc import ABSC
from absa_edit.tracing.corruption import Corrupter
from absa_edit.tracing.exact_patching import Cell, cells
from absa_edit.tracing.settings import Corruption, Engine, Tokens, TraceSettings
from absa_edit.tracing.tracer import trace_prompts

ROLES_TRACED = [r for r in Role if r is not Role.instruction]


EVERY = [Part.block, Part.attn, Part.mlp, Part.head]


def sites(lm: LanguageModel, parts: list[Part]) -> list[Part]:
    """Those of some parts that the model has sites of: experts have no one projection of an MLP."""
    return [*filter(BlockRunner(lm.model).has, parts)]


def traced(lm: LanguageModel, prompts: list[Prompt], labels: dict, **settings: object) -> Trace:
    asked = TraceSettings(**{"samples": 2, "filter": False, "parts": sites(lm, EVERY[:3]), **settings})
    return trace_prompts(lm, prompts, labels, asked, ABSC.prompt(), seed=3)


@torch.no_grad()
def slow(
    lm: LanguageModel,
    prompt: Prompt,
    labels: dict,
    corrupted: Tensor,
    settings: TraceSettings,
    padding: tuple[int, int] = (0, 0),
) -> dict:
    """Restored gold probability and margin of each cell by part, by one full forward pass of the model per cell.

    `padding` tokens stand before and after the prompt, masked.
    """
    runner, model, before = BlockRunner(lm.model), lm.model, padding[0]
    ids = pad(torch.tensor([prompt.ids]), padding)
    corrupted = pad(corrupted, (0, 0, *padding))
    given = {}
    if any(padding):
        mask = pad(torch.ones(1, len(prompt.ids), dtype=torch.long), padding)
        given = {"attention_mask": mask, "position_ids": (mask.cumsum(1) - 1).clamp(min=0)}
    words = [tokens[0] for tokens in labels.values()]
    gold = list(labels).index(prompt.example.label)
    others = [i for i in range(3) if i != gold]
    clean = {}
    with ExitStack() as stack:
        for layer in range(runner.layers):
            for part in filter(runner.has, (Part.block, Part.attn, Part.mlp)):
                clean[part, layer] = stack.enter_context(recorded(runner.module(Site(layer, part))))
            clean[Part.head, layer] = stack.enter_context(entering(runner.module(Site(layer, Part.head))))
        model(ids, **given)
    if any(padding):
        given["attention_mask"] = mask.expand(len(corrupted), -1)

    def put_back(cell: Cell, layer: int, where: list[int]) -> Callable[[Tensor], Tensor]:
        state = clean[cell.part, layer][0].reshape(1, ids.shape[1], -1)
        width = state.shape[-1] // runner.heads
        columns = slice(cell.head * width, (cell.head + 1) * width) if cell.part is Part.head else slice(None)

        def edit(output: Tensor) -> Tensor:
            out = output.reshape(len(corrupted), ids.shape[1], -1).clone()
            out[:, where, columns] = state[:, where, columns]
            return out.reshape(output.shape)

        return edit

    grids = {}
    for r, role in enumerate(settings.roles):
        where = [before + position for position in prompt.positions(role)]
        for cell in cells(settings.parts, runner.layers, settings.window, runner.heads):
            shape = (2, len(settings.roles), runner.layers, *([runner.heads] if cell.part is Part.head else []))
            grid = grids.setdefault(cell.part, np.full(shape, np.nan))
            if not where:
                continue
            with ExitStack() as stack:
                for layer in range(cell.start, cell.stop):
                    module, edit = runner.module(Site(layer, cell.part)), put_back(cell, layer, where)
                    if cell.part is Part.head:
                        stack.enter_context(entering(module, edit))
                    else:
                        stack.enter_context(edited(module, edit))
                logits = model(inputs_embeds=corrupted, **given).logits[:, before + len(prompt.ids) - 1, words]
            margin = (logits[:, gold] - logits[:, others].amax(1)).mean()
            at = (slice(None), r, cell.layer, *([cell.head] if cell.part is Part.head else []))
            grid[at] = logits.softmax(-1)[:, gold].mean(), margin
    return grids


def check_against_slow(
    lm: LanguageModel, prompts: list[Prompt], labels: dict, padding: tuple[int, int] = (0, 0), **changes: object
) -> None:
    plain = {"samples": 2, "window": 2, "batch_tokens": 300, "filter": False, "parts": sites(lm, EVERY[:3])}
    settings = TraceSettings(**{**plain, **changes})
    trace = trace_prompts(lm, prompts, labels, settings, ABSC.prompt(), seed=3)
    runner = BlockRunner(lm.model)
    corrupter = Corrupter.of(lm, prompts, settings, ABSC.prompt(), 3)
    for i, prompt in enumerate(prompts):
        with torch.no_grad():
            corrupted = corrupter.corrupt(prompt, runner.embed(torch.tensor([prompt.ids])))
        assert corrupted is not None
        for part, (probability, margin) in slow(lm, prompt, labels, corrupted, settings, padding).items():
            if part is Part.head:
                found, found_margin = trace.restored_heads[i], trace.restored_heads_margin[i]
            else:
                number = trace.parts.index(part)
                found, found_margin = trace.restored[i, number], trace.restored_margin[i, number]
            np.testing.assert_allclose(found, probability, atol=1e-5, rtol=0, err_msg=part)
            np.testing.assert_allclose(found_margin, margin, atol=1e-5, rtol=1e-5, err_msg=part)
            moved = np.abs(found_margin - trace.corrupted_margin[i])
            assert np.nanmax(moved) > 1e-3, part


def test_equals_a_loop_over_single_cells(tiny, prompts, labels) -> None:
    check_against_slow(tiny, prompts[:2], labels, parts=sites(tiny, EVERY))


@pytest.mark.every_family
@pytest.mark.parametrize("tiny", sorted(CONFIGS.keys() - set(FIRST)), indirect=True)
def test_equals_the_loop_at_two_roles_of_one_prompt(tiny, prompts, labels) -> None:
    check_against_slow(tiny, prompts[:1], labels, parts=sites(tiny, EVERY), roles=[Role.aspect, Role.last])


def test_equals_the_loop_with_one_batch_and_wide_windows(tiny, prompts, labels) -> None:
    check_against_slow(tiny, prompts[1:2], labels, window=10, batch_tokens=10**6, tokens=Tokens.aspect)


@pytest.mark.parametrize("corruption", [Corruption.mean, Corruption.counterfactual])
def test_equals_the_loop_however_the_input_is_corrupted(small, prompts, labels, corruption) -> None:
    some = [p for p in prompts if p.example.twin] if corruption is Corruption.counterfactual else prompts[:2]
    check_against_slow(small, some, labels, parts=EVERY, corruption=corruption)


REAL = (
    ("Battery life is terrible, plug it in at noon.", "Battery life", "negative"),
    ("The screen is lovely but the fan never stops.", "fan", "negative"),
    ("The screen is lovely but the fan never stops.", "screen", "positive"),
    ("Skip the extended three year accidental damage warranty.", "three year accidental damage warranty", "negative"),
    ("A mouse, they say, but the mouse is a good one.", "mouse", "positive"),
)
"""Aspects at the first token, several of one sentence, of more than five tokens, and twice in the sentence."""


@pytest.mark.slow
@pytest.mark.parametrize("side", [None, "left", "right"])
def test_equals_the_loop_on_the_bundled_model(bundled, labels, side) -> None:
    """Each prompt alone, or padded on one side as other tools do it in batches."""
    prompts = encode([example(*row) for row in REAL], bundled.tokenizer, ABSC.prompt())
    assert prompts[0].roles[prompts[0].roles.index(Role.aspect) - 1] is Role.instruction
    assert len(prompts[3].positions(Role.aspect)) > 5
    roles = [Role.aspect, Role.after, Role.aspect_again, Role.last]
    padding = {None: (0, 0), "left": (7, 0), "right": (0, 7)}[side]
    parts = EVERY[:3] if side else EVERY
    check_against_slow(bundled, prompts, labels, padding, parts=parts, roles=roles, window=5)


def test_restoring_everything_gives_the_clean_run(tiny, prompts, labels) -> None:
    """One role that is every token, restored in the block output: the clean run, whatever the layer."""
    whole = [replace(p, roles=(Role.after,) * len(p.ids)) for p in prompts]
    trace = traced(tiny, whole, labels, parts=[Part.block], roles=[Role.after], tokens=Tokens.all)
    np.testing.assert_allclose(trace.restored[:, 0, 0], np.repeat(trace.clean[:, None], trace.layers, 1), atol=1e-5)
    np.testing.assert_allclose(trace.restored_margin[:, 0, 0, 0], trace.clean_margin, atol=1e-4)
    assert np.abs(trace.clean_margin - trace.corrupted_margin).max() > 1e-2


def test_restoring_what_was_not_corrupted_gives_the_corrupted_run(tiny, prompts, labels) -> None:
    trace = traced(tiny, prompts, labels, roles=[Role.instruction])
    np.testing.assert_array_equal(
        trace.restored, np.broadcast_to(trace.corrupted[:, None, None, None], trace.restored.shape)
    )


def test_last_block_at_the_last_token_is_the_clean_run(small, prompts, labels) -> None:
    trace = traced(small, prompts, labels, parts=[Part.block], roles=[Role.last])
    np.testing.assert_allclose(trace.restored[:, 0, 0, -1], trace.clean, atol=1e-5)


@contextmanager
def blocks_given(lm: LanguageModel, room: float = inf) -> Iterator[list[int]]:
    """How many hidden states the blocks are given at a time; more than `room` do not fit into memory."""
    given: list[int] = []

    def enter(block: torch.nn.Module, args: tuple[Tensor, ...]) -> None:
        given.append(args[0].shape[:2].numel())
        if given[-1] > room:
            raise torch.OutOfMemoryError

    with ExitStack() as stack:
        for block in BlockRunner(lm.model).blocks:
            stack.callback(block.register_forward_pre_hook(enter).remove)
        yield given


def test_batches_are_bounded_and_do_not_change_the_result(small, prompts, labels) -> None:
    """No block is given more hidden states than asked for, or than one cell has."""
    found, largest, roles = [], [], [Role.before, Role.last]
    for most in (1, 300, 10**6):
        with blocks_given(small) as given:
            found.append(traced(small, prompts[:2], labels, parts=EVERY, roles=roles, batch_tokens=most))
        largest.append(max(given))
    one_cell = 2 * max(len(p.ids) for p in prompts[:2])
    assert largest[0] <= one_cell < largest[1] <= 300 < largest[2]
    for other in found[1:]:
        np.testing.assert_allclose(found[0].restored, other.restored, atol=1e-6)
        np.testing.assert_allclose(found[0].restored_heads, other.restored_heads, atol=1e-6)


@pytest.mark.parametrize("engine", [Engine.exact, Engine.attribution])
def test_what_does_not_fit_into_memory_is_halved_and_not_tried_again(small, prompts, labels, engine, caplog) -> None:
    asked = {"engine": engine, "parts": EVERY, "steps": 2, "dtype": Dtype.float32}
    whole = traced(small, prompts[:3], labels, **asked)
    with blocks_given(small, room=75) as given:
        found = traced(small, prompts[:3], labels, **asked)
    failed = [states for states in given if states > 75]
    assert failed and failed == sorted(set(failed), reverse=True), "each time with less"
    assert len(caplog.messages) == len(failed) and "trace.batch_tokens" in caplog.text
    assert found.example_ids == whole.example_ids
    np.testing.assert_allclose(found.restored, whole.restored, atol=1e-5)
    np.testing.assert_allclose(found.restored_heads, whole.restored_heads, atol=1e-5)
    with blocks_given(small, room=len(prompts[0].ids) + 1), pytest.raises(torch.OutOfMemoryError):
        traced(small, prompts[:1], labels, **asked)


def test_counterfactual_restores_towards_the_clean_sentence(bundled, prompts, labels) -> None:
    trace = traced(bundled, prompts, labels, corruption=Corruption.counterfactual, parts=[Part.block])
    twins = [p for p in prompts if p.example.twin]
    assert trace.counts.seen == len(twins) == 2
    last = trace.roles.index(Role.last)
    np.testing.assert_allclose(trace.restored[:, 0, last, -1], trace.clean, atol=1e-5)
    assert trace.noise_sd == 0.0 and trace.samples == 1
    twin = encode([counterfactual(twins[0].example)], bundled.tokenizer, ABSC.prompt())[0]
    with torch.no_grad():
        logits = bundled.model(torch.tensor([twin.ids])).logits[0, -1]
    p = logits[[tokens[0] for tokens in labels.values()]].softmax(-1)
    at = trace.example_ids.index(twins[0].example.id)
    assert trace.corrupted[at] == pytest.approx(float(p[list(labels).index(twins[0].example.label)]), abs=1e-6)


def test_the_filter_keeps_what_the_model_gets_right_and_noise_turns_wrong(bundled, prompts, labels) -> None:
    """Asked of the model itself: of the samples, the mean probabilities count."""
    settings = TraceSettings(samples=2, parts=[Part.block], roles=[Role.last])
    trace = trace_prompts(bundled, prompts, labels, settings, ABSC.prompt(), seed=3)
    corrupter, runner = Corrupter.of(bundled, prompts, settings, ABSC.prompt(), 3), BlockRunner(bundled.model)
    words = [tokens[0] for tokens in labels.values()]

    def right(prompt: Prompt, embeds: Tensor | None) -> bool:
        with torch.no_grad():
            logits = bundled.model(inputs_embeds=embeds).logits[:, -1, words]
        return list(labels)[int(logits.softmax(-1).mean(0).argmax())] == prompt.example.label

    clean = {p.example.id: runner.embed(torch.tensor([p.ids])) for p in prompts}
    wrong = [p for p in prompts if not right(p, clean[p.example.id])]
    robust = [p for p in prompts if p not in wrong and right(p, corrupter.corrupt(p, clean[p.example.id]))]
    assert wrong and robust
    assert trace.example_ids == tuple(p.example.id for p in prompts if p not in wrong and p not in robust)
    kept = len(prompts) - len(wrong) - len(robust)
    assert trace.counts == TraceCounts(len(prompts), len(wrong), len(robust), kept) and kept == len(trace.example_ids)


def test_nothing_kept_is_an_error_with_the_counts(small, prompts, labels) -> None:
    with pytest.raises(DataError, match=r"kept none of 8 examples.*trace\.noise"):
        traced(small, prompts, labels, noise=0.0, filter=True)


def test_absent_roles_are_nan(small, prompts, labels) -> None:
    trace = traced(small, prompts, labels, parts=[Part.block], roles=ROLES_TRACED)
    for i, name in enumerate(trace.example_ids):
        prompt = next(p for p in prompts if p.example.id == name)
        for r, role in enumerate(trace.roles):
            assert np.isnan(trace.restored[i, 0, r]).all() == (not prompt.positions(role))


def test_windows_are_cut_at_the_ends() -> None:
    assert [(c.start, c.stop) for c in cells([Part.attn], 4, 3)] == [(0, 2), (0, 3), (1, 4), (2, 4)]
    assert [(c.start, c.stop) for c in cells([Part.mlp], 3, 1)] == [(0, 1), (1, 2), (2, 3)]
    assert [(c.start, c.stop) for c in cells([Part.block], 2, 5)] == [(0, 1), (1, 2)]
    assert [(c.layer, c.head) for c in cells([Part.head], 2, 5, heads=2)] == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_different_examples_with_one_id_are_an_error(small, prompts, labels) -> None:
    same = replace(prompts[1], example=replace(prompts[1].example, id=prompts[0].example.id))
    with pytest.raises(DataError, match=r"'screen' in .*'fan' in .*an id of its own"):
        traced(small, [prompts[0], same], labels)
    twice = traced(small, [prompts[0]] * 2, labels, parts=[Part.block])
    np.testing.assert_array_equal(twice.restored[0], twice.restored[1])
