"""Corrupted inputs: noise on the embeddings of chosen tokens, or the sentence's counterfactual twin."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from absa_edit.config import Tokens
from absa_edit.data.prompts import Prompt
from absa_edit.lm.decoder import Decoder
from absa_edit.records import Role

ROLES: dict[Tokens, tuple[Role, ...]] = {
    Tokens.aspect: (Role.aspect, Role.aspect_again),
    Tokens.context: (Role.before, Role.after, Role.punctuation),
    Tokens.sentence: (Role.before, Role.aspect, Role.after, Role.punctuation),
    Tokens.all: tuple(Role),
}
"""The roles that each choice of `trace.tokens` corrupts."""


def embedding_sd(decoder: Decoder) -> float:
    """Standard deviation of all token embeddings, in embedding units.

    ROME takes it over the traced subjects; over the vocabulary it does not depend on which examples are drawn.
    """
    weight = decoder.embeddings.weight
    ids = torch.arange(len(weight), device=decoder.device)  # type: ignore[arg-type]
    return float(decoder.embed(ids[None]).float().std())  # through the module: Gemma 3 scales in it


def noisy(
    embeds: Float[Tensor, "1 pos hidden"],
    positions: list[int],
    samples: int,
    sd: float,
    generator: torch.Generator,
) -> Float[Tensor, "sample pos hidden"]:
    """`samples` copies of `embeds` with Gaussian noise of standard deviation `sd` at `positions`.

    Drawn once an example and used for every restoration, so that differences are the restored site alone.
    Source: Meng et al. 2022 (arXiv 2202.05262), section 2.1.
    """
    corrupted = embeds.repeat(samples, 1, 1)
    shape = (samples, len(positions), embeds.shape[-1])
    noise = torch.randn(shape, generator=generator, dtype=torch.float32)
    corrupted[:, positions] += (sd * noise).to(embeds)
    return corrupted


def twin_embeds(decoder: Decoder, clean: Prompt, twin: Prompt) -> Float[Tensor, "1 pos hidden"] | None:
    """Embeddings of the counterfactual prompt; None where its tokens do not line up with the clean prompt's."""
    if clean.roles != twin.roles:
        return None
    return decoder.embed(torch.tensor([twin.ids], device=decoder.device))
