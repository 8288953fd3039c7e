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

    def __post_init__(self) -> None:
        if self.resamples < 1 or self.batch_tokens < 1:
            raise SettingsError("score: expected resamples and batch_tokens of at least 1")
