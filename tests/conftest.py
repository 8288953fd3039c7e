"""Tiny random models of every family, a hand-written data set, and the bundled model."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # of commands that tests start: their threads would wait for each other's
os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is imported, so before anything that imports it

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from families import CONFIGS, FIRST
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerBase,
)

from absa_edit.data.prompts import Prompt, encode, label_ids
from absa_edit.model.loading import LanguageModel, load_model
from absa_edit.model.settings import ModelSettings
from absa_edit.model.sources import reviewlm
from absa_edit.records import Example, Twin
from absa_edit.tasks.absc import ABSC, Polarity

pytest_plugins = ["report_records", "exported"]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of families are slow on those that are not among the first, but for the tests that say otherwise."""
    for item in items:
        family = item.callspec.params.get("tiny") if hasattr(item, "callspec") else None
        if family in CONFIGS and family not in FIRST and not item.get_closest_marker("every_family"):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session", autouse=True)
def _machine() -> None:
    torch.set_num_threads(1)  # tiny tensors: a second thread only waits


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(reviewlm())


@pytest.fixture(scope="session", params=sorted(CONFIGS))
def tiny(request: pytest.FixtureRequest, tokenizer: PreTrainedTokenizerBase) -> LanguageModel:
    """A random model of each family, with weights large enough that inputs move the answer."""
    return tiny_model(request.param, tokenizer)


def tiny_model(family: str, tokenizer: PreTrainedTokenizerBase) -> LanguageModel:
    """A random model of one family; weights are scaled up so that corruption changes the answer."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIGS[family]()).eval().requires_grad_(False)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 2:
                weight.mul_(3.0 if "embed" in name or "wte" in name else 6.0)
    return LanguageModel(f"tiny-{family}", f"tiny-{family}", model, tokenizer, "0")


@pytest.fixture(scope="session")
def small(tokenizer: PreTrainedTokenizerBase) -> LanguageModel:
    """One tiny random Llama, for tests that need a model and not a family."""
    return tiny_model("llama", tokenizer)


@pytest.fixture(scope="session")
def bundled() -> LanguageModel:
    """The model that the package ships."""
    return load_model(ModelSettings(name="reviewlm", device="cpu"))


@pytest.fixture(scope="session")
def biased(bundled: LanguageModel) -> LanguageModel:
    """The same with biases of 0 in all projections, which change no answer."""
    options = {"attention_bias": True, "mlp_bias": True}
    model = LlamaForCausalLM(LlamaConfig(**{**bundled.model.config.to_dict(), **options})).eval().requires_grad_(False)
    zeros = {name: torch.zeros_like(p) for name, p in model.named_parameters() if name.endswith("bias")}
    model.load_state_dict({**bundled.model.state_dict(), **zeros})
    return replace(bundled, model=model, sha256="0")


def example(number: int, text: str, aspect: str, polarity: str, turn: tuple[str, str, str] | None = None) -> Example:
    """An example whose aspect stands at its first occurrence; `turn` is (word, its opposite, the twin's polarity)."""
    start = text.index(aspect)
    twin = None
    if turn:
        word, opposite, turned = turn
        sentence = text.replace(word, opposite)
        at = sentence.index(aspect)
        twin = Twin(sentence, at, at + len(aspect), Polarity(turned))
    end = start + len(aspect)
    return Example(f"{number}", f"s{number}", text, aspect, start, end, Polarity(polarity), "laptop", twin)


SENTENCES = (
    ("The screen is lovely but the fan never stops.", "screen", "positive", ("lovely", "awful", "negative")),
    ("The screen is lovely but the fan never stops.", "fan", "negative", None),
    ("Battery life is terrible, plug it in at noon.", "Battery life", "negative", ("terrible", "great", "positive")),
    ("I love how light this thing feels, and the keyboard is excellent.", "keyboard", "positive", None),
    ("It comes with a 65 watt charger.", "65 watt charger", "neutral", None),
    ("Great price, poor build quality!", "build quality", "negative", None),
    ("Great price, poor build quality!", "price", "positive", None),
    ("We ordered the soup and then waited an hour for it", "soup", "neutral", None),
)  # fmt: skip


@pytest.fixture(scope="session")
def examples() -> tuple[Example, ...]:
    return tuple(example(i, *row) for i, row in enumerate(SENTENCES))


@pytest.fixture(scope="session")
def prompts(examples: tuple[Example, ...], tokenizer: PreTrainedTokenizerBase) -> list[Prompt]:
    return encode(examples, tokenizer, ABSC.prompt())


@pytest.fixture(scope="session")
def labels(tokenizer: PreTrainedTokenizerBase) -> dict[Polarity, tuple[int, ...]]:
    return label_ids(tokenizer, ABSC.prompt(), ABSC.labels)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def public_data() -> Path:
    """The folder with the public data sets, where there is one."""
    root = Path(__file__).resolve().parents[1]
    for folder in (os.environ.get("ABSA_EDIT_DATA"), root / "data", root.parent / "shared" / "data"):
        if folder and (Path(folder) / "semeval14").is_dir():
            return Path(folder)
    pytest.skip("the public data is not here: set $ABSA_EDIT_DATA to a folder with semeval14/*.xml")
