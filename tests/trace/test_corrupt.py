"""Noise: where it falls, how large it is, that it is the same every time; twins that line up."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from absa_edit.config import PromptSettings, Tokens
from absa_edit.data.prompts import counterfactual, encode
from absa_edit.lm.decoder import Decoder
from absa_edit.records import Role
from absa_edit.trace.corrupt import ROLES, embedding_sd, noisy, twin_embeds


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_sd_is_that_of_all_token_embeddings(tiny) -> None:
    decoder = Decoder(tiny.model)
    embedded = decoder.embed(torch.arange(8192).view(64, 128))
    assert embedding_sd(decoder) == pytest.approx(float(embedded.double().std()), rel=1e-5)


def test_noise_falls_on_the_positions_only() -> None:
    embeds = torch.randn(1, 10, 16, generator=generator())
    corrupted = noisy(embeds, [2, 5, 9], 4, 0.5, generator())
    changed = (corrupted != embeds).all(-1)
    assert changed[:, [2, 5, 9]].all()
    assert torch.equal(corrupted[:, [0, 1, 3, 4, 6, 7, 8]], embeds[:, [0, 1, 3, 4, 6, 7, 8]].repeat(4, 1, 1))


def test_noise_has_the_standard_deviation_asked_for() -> None:
    noise = noisy(torch.zeros(1, 50, 64), list(range(50)), 20, 0.25, generator())
    assert float(noise.std()) == pytest.approx(0.25, rel=0.02)
    assert float(noise.mean()) == pytest.approx(0.0, abs=0.005)
    assert float(torch.corrcoef(noise.flatten(1)).fill_diagonal_(0).abs().max()) < 0.1  # samples are independent


def test_noise_depends_on_the_seed_alone() -> None:
    embeds = torch.ones(1, 4, 8)
    a, b, c = (noisy(embeds, [1, 2], 3, 1.0, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(a, b) and not torch.equal(a, c)
    assert torch.equal(embeds, torch.ones(1, 4, 8))


def test_noise_is_drawn_in_float32_whatever_the_dtype() -> None:
    full = noisy(torch.zeros(1, 4, 8), [1], 2, 1.0, generator())
    half = noisy(torch.zeros(1, 4, 8, dtype=torch.bfloat16), [1], 2, 1.0, generator())
    assert torch.equal(half, full.bfloat16())


def test_roles_of_each_choice(prompts) -> None:
    for prompt in prompts:
        at = {tokens: set(prompt.positions(*ROLES[tokens])) for tokens in Tokens}
        assert at[Tokens.all] == set(range(len(prompt.ids)))
        assert at[Tokens.sentence] == at[Tokens.context] | set(prompt.positions(Role.aspect))
        assert not at[Tokens.context] & at[Tokens.aspect]
        assert at[Tokens.aspect] - at[Tokens.sentence] == set(prompt.positions(Role.aspect_again))


@torch.no_grad()
def test_twin_embeddings_are_those_of_the_turned_sentence(small, prompts) -> None:
    clean = prompts[0]
    twin = encode([counterfactual(clean.example)], small.tokenizer, PromptSettings())[0]
    decoder = Decoder(small.model)
    embeds = twin_embeds(decoder, clean, twin)
    assert embeds is not None
    assert torch.equal(embeds, decoder.embed(torch.tensor([twin.ids])))
    moved = [i for i, (a, b) in enumerate(zip(clean.ids, twin.ids, strict=True)) if a != b]
    assert moved and set(moved) <= set(clean.positions(Role.after))


def test_twins_that_do_not_line_up_are_left_out(small, prompts) -> None:
    clean = prompts[0]
    decoder = Decoder(small.model)
    assert twin_embeds(decoder, clean, prompts[3]) is None
    moved = replace(clean, roles=(*clean.roles[:-2], Role.instruction, Role.last))
    assert twin_embeds(decoder, clean, moved) is None
