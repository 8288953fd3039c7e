"""How predictions are made and what is said of them."""

from __future__ import annotations

from dataclasses import dataclass

from absa_edit.errors import SettingsError


@dataclass
class ScoreSettings:
    """How predictions are made and what is said of them."""

    batch_tokens: int = 4096
    """Tokens (padding included) in one scoring batch."""
    resamples: int = 2000
    """Bootstrap and permutation draws."""
    sampled: bool = False
    """Tell besides how answers score that are drawn, up to ten tokens of the whole vocabulary, as arXiv 2503.15117's
    code does. Slow, and only of use for models that end their answers (`fit.end`)."""

    calibration: bool = True
    """Fit a temperature on development data (one more pass over them), and tell of each test set how far probabilities
    can be trusted, without it and with it."""

    retention: bool = True
    """Ask each model, and the base, about sentences of no domain, too, in a question of another form."""
    general_examples: int = 200
    """Most sentences of each set that are asked about so."""
    neutral_words: int = 5000
    """Words of neutral text, at least, that perplexity is told on; drawn by the seed, the same for every method."""

    def __post_init__(self) -> None:
        for key in ("resamples", "batch_tokens", "general_examples", "neutral_words"):
            if getattr(self, key) < 1:
                raise SettingsError(f"score.{key}={getattr(self, key)}: expected at least 1")
