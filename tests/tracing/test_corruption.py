"""Noise: where it falls, how large it is, that it is the same every time; twins that line up."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from absa_edit.data.prompts import Prompt, counterfactual, encode
from absa_edit.errors import DataError
from absa_edit.model.block_runner import BlockRunner
from absa_edit.model.loading import LanguageModel
from absa_edit.records import Role
from absa_edit.tasks.absc import ABSC
from absa_edit.tracing.corruption import ROLES, Corrupter, embedding_sd, noisy
from absa_edit.tracing.settings import Corruption, Tokens, TraceSettings


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_sd_is_that_of_all_token_embeddings(tiny) -> None:
    runner = BlockRunner(tiny.model)
    embedded = runner.embed(torch.arange(8192).view(64, 128))
    assert embedding_sd(runner) == pytest.approx(float(embedded.double().std()), rel=1e-5)


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


def corrupter(lm: LanguageModel, prompts: list[Prompt], seed: int = 0, **settings: object) -> Corrupter:
    return Corrupter.of(lm, prompts, TraceSettings(**settings), ABSC.prompt(), seed)


def embedded(lm: LanguageModel, prompt: Prompt) -> Tensor:
    return lm.model.get_input_embeddings()(torch.tensor([prompt.ids]))


@torch.no_grad()
def test_twin_embeddings_are_those_of_the_turned_sentence(small, prompts) -> None:
    clean = prompts[0]
    twin = encode([counterfactual(clean.example)], small.tokenizer, ABSC.prompt())[0]
    one = corrupter(small, prompts, corruption=Corruption.counterfactual)
    embeds = one.corrupt(clean, embedded(small, clean))
    assert embeds is not None and one.samples == 1
    assert torch.equal(embeds, embedded(small, twin))
    moved = [i for i, (a, b) in enumerate(zip(clean.ids, twin.ids, strict=True)) if a != b]
    assert moved and set(moved) <= set(clean.positions(Role.after))


def test_twins_that_do_not_line_up_are_left_out(small, prompts) -> None:
    moved = replace(prompts[0], roles=(*prompts[0].roles[:-2], Role.instruction, Role.last))
    assert list(corrupter(small, prompts, corruption=Corruption.counterfactual).twins) == ["0", "2"]
    assert list(corrupter(small, [moved, *prompts[1:]], corruption=Corruption.counterfactual).twins) == ["2"]


@torch.no_grad()
def test_noise_of_an_example_does_not_depend_on_the_others(small, prompts) -> None:
    every = [
        corrupter(small, chosen).corrupt(prompts[2], embedded(small, prompts[2])) for chosen in (prompts, prompts[2:3])
    ]
    assert torch.equal(*every)
    other = corrupter(small, prompts, seed=1).corrupt(prompts[2], embedded(small, prompts[2]))
    assert not torch.allclose(every[0], other)


@torch.no_grad()
def test_mean_corruption_puts_the_mean_of_the_tokens_in_their_place(small, prompts) -> None:
    one = corrupter(small, prompts, corruption=Corruption.mean, tokens=Tokens.aspect)
    where = [p.positions(Role.aspect, Role.aspect_again) for p in prompts]
    every = torch.cat([embedded(small, p)[0, at] for p, at in zip(prompts, where, strict=True)])
    embeds = embedded(small, prompts[1])
    corrupted = one.corrupt(prompts[1], embeds)
    torch.testing.assert_close(corrupted[0, where[1]], every.mean(0).expand(len(where[1]), -1))
    rest = [i for i in range(embeds.shape[1]) if i not in where[1]]
    assert torch.equal(corrupted[:, rest], embeds[:, rest])


@pytest.mark.parametrize("corruption", [Corruption.mean, Corruption.noise])
def test_nothing_to_corrupt_is_an_error(small, prompts, corruption) -> None:
    bare = [replace(prompts[0], roles=(Role.instruction,) * (len(prompts[0].ids) - 1) + (Role.last,))]
    with pytest.raises(DataError, match=r"trace\.tokens=context: none of the 1 examples"):
        corrupter(small, bare, corruption=corruption, tokens=Tokens.context)
