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
from absa_edit.lm.hooks import edited, recorded
from absa_edit.lm.load import LanguageModel
from absa_edit.records import Part, Role, Site, Trace
from absa_edit.trace.corrupt import ROLES, embedding_sd, noisy
from absa_edit.trace.exact import cells, trace_exact

ROLES_TRACED = [r for r in Role if r is not Role.instruction]


def traced(lm: LanguageModel, prompts: list[Prompt], labels: dict, **settings: object) -> Trace:
    return trace_exact(
        lm,
        prompts,
        labels,
        TraceSettings(**{"samples": 2, "filter": False, **settings}),
        PromptSettings(),
        rng=torch.Generator().manual_seed(3),
    )


@torch.no_grad()
def slow(lm: LanguageModel, prompt: Prompt, labels: dict, corrupted: Tensor, settings: TraceSettings) -> np.ndarray:
    """Restored gold probability and margin of each cell, by one full forward pass of the model per cell."""
    decoder, model = Decoder(lm.model), lm.model
    gold = labels[prompt.example.polarity][0]
    others = [tokens[0] for p, tokens in labels.items() if p is not prompt.example.polarity]
    clean = {}
    with ExitStack() as stack:
        for layer in range(decoder.layers):
            for part in settings.parts:
                clean[part, layer] = stack.enter_context(recorded(decoder.module(Site(layer, part))))
        model(torch.tensor([prompt.ids]))

    def put_back(part: Part, layer: int, where: list[int]) -> Callable[[Tensor], Tensor]:
        state = clean[part, layer][0].reshape(1, len(prompt.ids), -1)

        def edit(output: Tensor) -> Tensor:
            out = output.reshape(len(corrupted), len(prompt.ids), -1).clone()
            out[:, where] = state[:, where]
            return out.reshape(output.shape)

        return edit

    grid = np.full((2, len(settings.parts), len(settings.roles), decoder.layers), np.nan)
    for r, role in enumerate(settings.roles):
        where = prompt.positions(role)
        if not where:
            continue
        for cell in cells(settings.parts, decoder.layers, settings.window):
            with ExitStack() as stack:
                for layer in range(cell.start, cell.stop):
                    module = decoder.module(Site(layer, cell.part))
                    stack.enter_context(edited(module, put_back(cell.part, layer, where)))
                logits = model(inputs_embeds=corrupted).logits[:, -1]
            margin = (logits[:, gold] - logits[:, others].amax(1)).mean()
            part = settings.parts.index(cell.part)
            grid[:, part, r, cell.layer] = logits.softmax(-1)[:, gold].mean(), margin
    return grid


def check_against_slow(lm: LanguageModel, prompts: list[Prompt], labels: dict) -> None:
    settings = TraceSettings(samples=2, window=2, batch_tokens=300, filter=False)
    trace = trace_exact(lm, prompts, labels, settings, PromptSettings(), rng=torch.Generator().manual_seed(3))
    decoder, rng = Decoder(lm.model), torch.Generator().manual_seed(3)
    grids = []
    for prompt in prompts:
        with torch.no_grad():
            embeds = decoder.embed(torch.tensor([prompt.ids]))
            positions = prompt.positions(*ROLES[Tokens.sentence])
            corrupted = noisy(embeds, positions, 2, 3 * embedding_sd(decoder), rng)
        grids.append(slow(lm, prompt, labels, corrupted, settings))
    expected = np.stack(grids)
    np.testing.assert_allclose(trace.restored, expected[:, 0], atol=1e-5, rtol=0)
    np.testing.assert_allclose(trace.restored_margin, expected[:, 1], atol=1e-5, rtol=1e-5)
    assert np.nanmax(np.abs(trace.restored_margin - trace.corrupted_margin[:, None, None, None])) > 1e-2


def test_equals_a_loop_over_single_cells(tiny, prompts, labels) -> None:
    check_against_slow(tiny, prompts[:2], labels)


@pytest.mark.slow
def test_equals_the_loop_on_the_bundled_model(bundled, prompts, labels) -> None:
    check_against_slow(bundled, prompts[:3], labels)


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
    one, many = (traced(small, prompts, labels, batch_tokens=n) for n in (1, 10**6))
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
        p = bundled.model(torch.tensor([twin.ids])).logits[0, -1].softmax(-1)
    at = trace.example_ids.index(twins[0].example.id)
    assert trace.corrupted[at] == pytest.approx(float(p[labels[twins[0].example.polarity][0]]), abs=1e-6)


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
    assert [(c.joins, c.stop) for c in cells([Part.block], 2, 5)] == [(1, 1), (2, 2)]
