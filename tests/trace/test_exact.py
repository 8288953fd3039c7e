"""The tracer against a plain hook loop that restores one cell at a time, and its identities."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from absa_edit.config import Corruption, PromptSettings, Tokens, TraceSettings
from absa_edit.data.prompts import Prompt, counterfactual, encode
from absa_edit.errors import DataError
from absa_edit.lm.decoder import Decoder
from absa_edit.lm.hooks import edited, entering, recorded
from absa_edit.lm.load import LanguageModel
from absa_edit.records import Part, Role, Site, Trace
from absa_edit.trace.corrupt import Corrupter
from absa_edit.trace.exact import Cell, cells
from absa_edit.trace.tracing import trace_prompts

ROLES_TRACED = [r for r in Role if r is not Role.instruction]


def traced(lm: LanguageModel, prompts: list[Prompt], labels: dict, **settings: object) -> Trace:
    asked = TraceSettings(**{"samples": 2, "filter": False, **settings})
    return trace_prompts(lm, prompts, labels, asked, PromptSettings(), seed=3)


@torch.no_grad()
def slow(lm: LanguageModel, prompt: Prompt, labels: dict, corrupted: Tensor, settings: TraceSettings) -> dict:
    """Restored gold probability and margin of each cell by part, by one full forward pass of the model per cell."""
    decoder, model = Decoder(lm.model), lm.model
    words = [tokens[0] for tokens in labels.values()]
    gold = list(labels).index(prompt.example.polarity)
    others = [i for i in range(3) if i != gold]
    clean = {}
    with ExitStack() as stack:
        for layer in range(decoder.layers):
            for part in (Part.block, Part.attn, Part.mlp):
                clean[part, layer] = stack.enter_context(recorded(decoder.module(Site(layer, part))))
            clean[Part.head, layer] = stack.enter_context(entering(decoder.module(Site(layer, Part.head))))
        model(torch.tensor([prompt.ids]))

    def put_back(cell: Cell, layer: int, where: list[int]) -> Callable[[Tensor], Tensor]:
        state = clean[cell.part, layer][0].reshape(1, len(prompt.ids), -1)
        width = state.shape[-1] // decoder.heads
        columns = slice(cell.head * width, (cell.head + 1) * width) if cell.part is Part.head else slice(None)

        def edit(output: Tensor) -> Tensor:
            out = output.reshape(len(corrupted), len(prompt.ids), -1).clone()
            out[:, where, columns] = state[:, where, columns]
            return out.reshape(output.shape)

        return edit

    grids = {}
    for r, role in enumerate(settings.roles):
        where = prompt.positions(role)
        for cell in cells(settings.parts, decoder.layers, settings.window, decoder.heads):
            shape = (2, len(settings.roles), decoder.layers, *([decoder.heads] if cell.part is Part.head else []))
            grid = grids.setdefault(cell.part, np.full(shape, np.nan))
            if not where:
                continue
            with ExitStack() as stack:
                for layer in range(cell.start, cell.stop):
                    module, edit = decoder.module(Site(layer, cell.part)), put_back(cell, layer, where)
                    if cell.part is Part.head:
                        stack.enter_context(entering(module, edit))
                    else:
                        stack.enter_context(edited(module, edit))
                logits = model(inputs_embeds=corrupted).logits[:, -1, words]
            margin = (logits[:, gold] - logits[:, others].amax(1)).mean()
            at = (slice(None), r, cell.layer, *([cell.head] if cell.part is Part.head else []))
            grid[at] = logits.softmax(-1)[:, gold].mean(), margin
    return grids


def check_against_slow(lm: LanguageModel, prompts: list[Prompt], labels: dict, **changes: object) -> None:
    settings = TraceSettings(**{"samples": 2, "window": 2, "batch_tokens": 300, "filter": False, **changes})
    trace = trace_prompts(lm, prompts, labels, settings, PromptSettings(), seed=3)
    decoder = Decoder(lm.model)
    corrupter = Corrupter.of(lm, prompts, settings, PromptSettings(), 3)
    for i, prompt in enumerate(prompts):
        with torch.no_grad():
            corrupted = corrupter.corrupt(prompt, decoder.embed(torch.tensor([prompt.ids])))
        assert corrupted is not None
        for part, (probability, margin) in slow(lm, prompt, labels, corrupted, settings).items():
            if part is Part.head:
                found, found_margin = trace.restored_heads[i], trace.restored_heads_margin[i]
            else:
                number = trace.parts.index(part)
                found, found_margin = trace.restored[i, number], trace.restored_margin[i, number]
            np.testing.assert_allclose(found, probability, atol=1e-5, rtol=0, err_msg=part)
            np.testing.assert_allclose(found_margin, margin, atol=1e-5, rtol=1e-5, err_msg=part)
            moved = np.abs(found_margin - trace.corrupted_margin[i])
            assert np.nanmax(moved) > 1e-3, part


EVERY = [Part.block, Part.attn, Part.mlp, Part.head]


def test_equals_a_loop_over_single_cells(tiny, prompts, labels) -> None:
    check_against_slow(tiny, prompts[:2], labels, parts=EVERY)


def test_equals_the_loop_with_one_batch_and_wide_windows(tiny, prompts, labels) -> None:
    check_against_slow(tiny, prompts[1:2], labels, window=10, batch_tokens=10**6, tokens=Tokens.aspect)


@pytest.mark.slow
def test_equals_the_loop_on_the_bundled_model(bundled, prompts, labels) -> None:
    check_against_slow(bundled, prompts[:3], labels, parts=EVERY, roles=[Role.aspect, Role.after, Role.last], window=5)


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


def test_memory_bound_does_not_change_the_result(small, prompts, labels) -> None:
    one, many = (traced(small, prompts[:2], labels, batch_tokens=n) for n in (1, 10**6))
    np.testing.assert_allclose(one.restored, many.restored, atol=1e-6)


def test_counterfactual_restores_towards_the_clean_sentence(bundled, prompts, labels) -> None:
    trace = traced(bundled, prompts, labels, corruption=Corruption.counterfactual, parts=[Part.block])
    twins = [p for p in prompts if p.example.twin]
    assert trace.counts.seen == len(twins) == 2
    last = trace.roles.index(Role.last)
    np.testing.assert_allclose(trace.restored[:, 0, last, -1], trace.clean, atol=1e-5)
    assert trace.noise_sd == 0.0 and trace.samples == 1
    twin = encode([counterfactual(twins[0].example)], bundled.tokenizer, PromptSettings())[0]
    with torch.no_grad():
        logits = bundled.model(torch.tensor([twin.ids])).logits[0, -1]
    p = logits[[tokens[0] for tokens in labels.values()]].softmax(-1)
    at = trace.example_ids.index(twins[0].example.id)
    assert trace.corrupted[at] == pytest.approx(float(p[list(labels).index(twins[0].example.polarity)]), abs=1e-6)


def test_counts_follow_the_filter(bundled, prompts, labels) -> None:
    trace = traced(bundled, prompts, labels, parts=[Part.block], roles=[Role.last], filter=True)
    counts = trace.counts
    assert counts.seen == len(prompts)
    assert counts.kept == len(trace.example_ids) == counts.seen - counts.clean_wrong - counts.corrupted_right
    assert counts.kept > 0


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


def test_a_stopped_trace_goes_on_where_it_was(small, prompts, labels, tmp_path) -> None:
    file = tmp_path / "partial.jsonl"
    settings = TraceSettings(samples=2, filter=False)
    whole = trace_prompts(small, prompts, labels, settings, PromptSettings(), seed=3)

    def stopping(items, name, total=None):  # type: ignore[no-untyped-def]
        for number, item in enumerate(items):
            if number == 3:
                raise KeyboardInterrupt
            yield item

    with pytest.raises(KeyboardInterrupt):
        trace_prompts(small, prompts, labels, settings, PromptSettings(), seed=3, partial=file, progress=stopping)
    text = file.read_text(encoding="utf-8")
    assert text.count("\n") == 4
    first = max(range(len(prompts)), key=lambda i: len(prompts[i].ids))  # the longest one is traced first
    changed = text.replace(f"[{whole.clean[first]}", "[0.125")  # seen if read again
    file.write_text(changed + '{"id": "cut', encoding="utf-8")
    resumed = trace_prompts(small, prompts, labels, settings, PromptSettings(), seed=3, partial=file)
    assert not file.exists()
    assert resumed.clean[first] == 0.125
    np.testing.assert_array_equal(resumed.restored, whole.restored)
    np.testing.assert_array_equal(np.delete(resumed.clean, first), np.delete(whole.clean, first))


def test_a_stopped_trace_of_other_settings_is_not_gone_on_with(small, prompts, labels, tmp_path) -> None:
    file = tmp_path / "partial.jsonl"
    file.write_text('{"key": "other"}\n{"id": "0", "broken": 1}\n', encoding="utf-8")
    trace = trace_prompts(
        small, prompts[:2], labels, TraceSettings(samples=1, filter=False), PromptSettings(), seed=3, partial=file
    )
    assert len(trace.example_ids) == 2
