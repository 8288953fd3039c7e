"""A base model on disk and methods with deltas that are not 0."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from contexts import adapt
from families import sites_in

from absa_edit.data.settings import PromptSettings
from absa_edit.export.folder import Description, describe
from absa_edit.methods.adapted_model import AdaptedModel
from absa_edit.methods.low_rank_edit import Edit
from absa_edit.methods.settings import MethodSettings
from absa_edit.model.loading import LanguageModel, load_model
from absa_edit.model.settings import ModelSettings
from absa_edit.records import EditPlan, Part, Site, Target
from absa_edit.tasks.absc import ABSC

MIXED = (Target(Site(0, Part.attn), 1), Target(Site(1, Part.mlp), 4), Target(Site(2, Part.attn), 3))


def _trained(
    lm: LanguageModel, method: MethodSettings | None = None, targets: tuple[Target, ...] = MIXED
) -> AdaptedModel:
    places = sites_in(lm.model, [target.site for target in targets])
    targets = tuple(Target(site, target.rank) for site, target in zip(places, targets, strict=True))
    adapted = adapt(lm.model, method or Edit(lr=1e-3), EditPlan("me", targets, 0), seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in adapted.trainable().items():
            noise = 0.2 * torch.randn(parameter.shape, generator=generator)
            held = parameter == 0 if "lora_A" in name else False  # what a head's adapter must not read
            parameter.add_(noise.masked_fill(torch.as_tensor(held), 0))
    return adapted


@pytest.fixture
def trained() -> Callable[..., AdaptedModel]:
    """A function that adapts a model and moves everything that trains."""
    return _trained


@pytest.fixture(scope="session")
def base_folder(small: LanguageModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny Llama on disk."""
    folder = tmp_path_factory.mktemp("base") / "tiny"
    small.model.save_pretrained(folder)
    small.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def about(base_folder: Path) -> Callable[..., Description]:
    """A function that describes an export made on the model in `base_folder`."""
    sha256 = load_model(ModelSettings(name=str(base_folder), device="cpu")).sha256

    def of(adapted: AdaptedModel, base: str | None = None, prompt: PromptSettings | None = None) -> Description:
        return describe(adapted, ModelSettings(name=base or str(base_folder)), sha256, prompt or ABSC.prompt(), ABSC)

    return of
