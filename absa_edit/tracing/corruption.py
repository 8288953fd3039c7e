"""Corrupted inputs: noise on the embeddings of chosen tokens, their mean, or the sentence's counterfactual twin."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from absa_edit.data.prompts import Prompt, counterfactual, encode
from absa_edit.data.settings import PromptSettings
from absa_edit.errors import DataError
from absa_edit.model.block_runner import BlockRunner
from absa_edit.model.loading import LanguageModel
from absa_edit.records import Role
from absa_edit.tracing.settings import Corruption, Tokens, TraceSettings

ROLES: dict[Tokens, tuple[Role, ...]] = {
    Tokens.aspect: (Role.aspect, Role.aspect_again),
    Tokens.context: (Role.sentence, Role.before, Role.after, Role.punctuation),
    Tokens.sentence: (Role.sentence, Role.before, Role.aspect, Role.after, Role.punctuation),
    Tokens.all: tuple(Role),
}
"""The roles that each choice of `trace.tokens` corrupts."""


def embedding_sd(runner: BlockRunner) -> float:
    """Standard deviation of all token embeddings, in embedding units.

    ROME takes it over the traced subjects; over the vocabulary it does not depend on which examples are drawn.
    """
    weight = runner.embeddings.weight
    ids = torch.arange(len(weight), device=runner.device)  # type: ignore[arg-type]
    return float(runner.embed(ids[None]).float().std())  # through the module: Gemma 3 scales in it


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


@dataclass(frozen=True)
class Corrupter:
    """Makes the corrupted inputs of prompts, as the settings say; the same ones beside any other examples."""

    runner: BlockRunner
    settings: TraceSettings
    seed: int
    noise_sd: float
    """Standard deviation of the noise in embedding units; 0 for the other corruptions."""
    twins: dict[str, Prompt]
    """Counterfactual prompts that line up with the clean ones, by example id."""
    mean: Float[Tensor, " embedding"] | None

    @classmethod
    @torch.inference_mode()
    def of(
        cls, lm: LanguageModel, prompts: Sequence[Prompt], settings: TraceSettings, prompt: PromptSettings, seed: int
    ) -> Corrupter:
        """What corrupts these prompts; twins are encoded and the mean is taken here.

        Raises `DataError` when none of them has tokens of the kind that is to be corrupted.
        """
        if settings.corruption is not Corruption.counterfactual:
            roles = ROLES[settings.tokens]
            if not any(p.positions(*roles) for p in prompts):
                raise DataError(
                    f"trace.tokens={settings.tokens.value}: none of the {len(prompts)} examples has such tokens; "
                    "choose another trace.tokens"
                )
        runner = BlockRunner(lm.model)
        sd, twins, mean = 0.0, {}, None
        if settings.corruption is Corruption.noise:
            sd = embedding_sd(runner) * settings.noise
        elif settings.corruption is Corruption.counterfactual:
            pairs = [(p, twin) for p in prompts if (twin := counterfactual(p.example))]
            encoded = encode([twin for _, twin in pairs], lm.tokenizer, prompt)
            twins = {p.example.id: t for (p, _), t in zip(pairs, encoded, strict=True) if p.roles == t.roles}
        else:
            ids = [p.ids[i] for p in prompts for i in p.positions(*ROLES[settings.tokens])]
            mean = runner.embed(torch.tensor([ids], device=runner.device))[0].float().mean(0).to(lm.model.dtype)
        return cls(runner, settings, seed, sd, twins, mean)

    @property
    def samples(self) -> int:
        return self.settings.samples if self.settings.corruption is Corruption.noise else 1

    @property
    def tokens(self) -> str:
        """What is corrupted, in a word."""
        return "opinion" if self.settings.corruption is Corruption.counterfactual else self.settings.tokens.value

    def corrupt(
        self, prompt: Prompt, embeds: Float[Tensor, "1 pos embedding"]
    ) -> Float[Tensor, "sample pos embedding"] | None:
        """The corrupted embeddings; None where the prompt's twin does not line up with it."""
        if self.settings.corruption is Corruption.counterfactual:
            twin = self.twins.get(prompt.example.id)
            return None if twin is None else self.runner.embed(torch.tensor([twin.ids], device=embeds.device))
        positions = prompt.positions(*ROLES[self.settings.tokens])
        if self.mean is not None:
            corrupted = embeds.clone()
            corrupted[:, positions] = self.mean
            return corrupted
        generator = torch.Generator().manual_seed(zlib.crc32(f"{self.seed} {prompt.example.id}".encode()))
        return noisy(embeds, positions, self.settings.samples, self.noise_sd, generator)
