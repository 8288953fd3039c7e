"""The base model as it is, shown training examples with their answers before each question."""

from __future__ import annotations

from dataclasses import dataclass

from absa_edit.context import Context
from absa_edit.data.settings import PromptSettings
from absa_edit.errors import SettingsError
from absa_edit.methods.base import method
from absa_edit.methods.settings import MethodSettings
from absa_edit.methods.zero_shot import Untouched, ZeroShot


@dataclass
class FewShot(ZeroShot):
    """The base model after a few answered examples."""

    shots: int = 8
    """How many, drawn as `prompt.shots` are and put before the run's prompt in place of its own."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shots < 1:
            raise SettingsError(f"method.<name>.shots={self.shots}: expected 1 or more; zero_shot takes none")


@method("few_shot")
class Shown(Untouched):
    """Nothing trains; the prompt alone differs."""

    settings = FewShot

    def prompt(self, ctx: Context, settings: MethodSettings) -> PromptSettings:
        assert isinstance(settings, FewShot)
        return ctx.prompt_with(settings.shots)
