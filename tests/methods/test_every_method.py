"""Every method that trains: how many parameters, by its formula, and that it can learn thirty-two answers by heart."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from contexts import context
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from runs import ROOT
from transformers import AutoModelForCausalLM

import absa_edit
from absa_edit.compose import register, settings_from
from absa_edit.evaluation.predict import log_probabilities
from absa_edit.localizers.plan import every_layer, plan_of
from absa_edit.methods.adapted_model import AdaptedModel
from absa_edit.methods.base import adapt, method_of
from absa_edit.methods.settings import METHODS, MethodSettings
from absa_edit.model.loading import LanguageModel
from absa_edit.records import Part, Site
from absa_edit.training.loop import fit
from absa_edit.training.settings import FitSettings

H, INNER, LAYERS, HEADS, KV, WIDTH, VOCABULARY = 64, 96, 3, 4, 2, 16, 8192
"""The model's widths: hidden, MLP, layers, heads, key-value heads, head, vocabulary."""
Q, K, V, OUT = (H, HEADS * WIDTH), (H, KV * WIDTH), (H, KV * WIDTH), (HEADS * WIDTH, H)
GATE, UP, DOWN = (H, INNER), (H, INNER), (INNER, H)
BLOCK = (Q, K, V, OUT, GATE, UP, DOWN)
"""Inputs and outputs of a block's linear layers."""
LOCATED, RANK = 2, 4
"""The plan: attention and MLP outputs of the layers 1 and 2, with this rank. Of layer 2 answers read the last token."""


def low_rank(rank: int, shapes: tuple[tuple[int, int], ...] = BLOCK) -> int:
    """Of an A (rank x inputs) and a B (outputs x rank) each."""
    return sum(rank * (inputs + outputs) for inputs, outputs in shapes)


def outputs(shapes: tuple[tuple[int, int], ...] = BLOCK) -> int:
    return sum(size for _, size in shapes)


def weights() -> int:
    """Of a block: its matrices and two norms."""
    return sum(inputs * outputs for inputs, outputs in BLOCK) + 2 * H


def loreft(rank: int, edits: int) -> int:
    """R, W and b of each edit."""
    return edits * rank * (2 * H + 1)


FORMULAS: dict[str, int] = {
    "edit": LOCATED * low_rank(RANK, (OUT, DOWN)),
    "edit_representation": LOCATED * low_rank(RANK, (OUT, DOWN)) + loreft(4, LOCATED - 1),
    "random": LOCATED * low_rank(RANK, (OUT, DOWN)),
    "delta": LOCATED * (OUT[0] * OUT[1] + DOWN[0] * DOWN[1]),
    "full": 2 * VOCABULARY * H + LAYERS * weights() + H,
    "full_located": LOCATED * weights(),
    "bitfit": LAYERS * outputs(),
    "reft": loreft(4, (LAYERS - 1) + LAYERS),  # the first token in all layers but the last, the last one in all
    "jola": LAYERS * HEADS * (2 * WIDTH + 2),  # a factor and an offset an entry, and two gates a head
    "solve": LOCATED * low_rank(2, (OUT, DOWN)),  # labels - 1
    "amplify": LOCATED * 2,
    "task_vector": LOCATED * weights(),
    "probe": 3 * (H + 1),
    "prefix": 8 * LAYERS * 2 * KV * WIDTH,
    "lora": LAYERS * low_rank(8),
    "rslora": LAYERS * low_rank(8),
    "peft_adapter": LAYERS * low_rank(8),
    "dora": LAYERS * (low_rank(8) + outputs()),  # and a magnitude an output
    "adalora": LAYERS * (low_rank(12) + 12 * len(BLOCK)),  # and the singular values
    "loha": LAYERS * 2 * low_rank(8),
    "ia3": LAYERS * (K[1] + V[1] + DOWN[0]),
    "vera": LAYERS * (outputs() + 64 * len(BLOCK)),
    "oft": LAYERS * sum(inputs // 32 * (32 * 31 // 2) for inputs, _ in BLOCK),  # skew-symmetric blocks of inputs
    "ln_tuning": (2 * LAYERS + 1) * H,
    "paper_edit": LOCATED * low_rank(RANK, (OUT, DOWN)) + loreft(4, LOCATED - 1),
    "paper_edit_one_rate": LOCATED * low_rank(RANK, (OUT, DOWN)) + loreft(4, LOCATED - 1),
    "paper_lora": LAYERS * low_rank(32, (Q, K, V, UP, DOWN)),
    "paper_dora": LAYERS * (low_rank(32, (Q, K, V, UP, DOWN)) + outputs((Q, K, V, UP, DOWN))),
    "paper_loreft": loreft(8, LOCATED - 1),
    "paper_loreft_all": loreft(8, LAYERS - 1),
}
"""Trained parameters of each option of the group `method`; a new method brings its own."""
LEARNS: dict[str, tuple[int, float]] = {
    "edit": (12, 2e-2),
    "delta": (10, 1e-3),
    "full": (8, 5e-4),
    "full_located": (8, 5e-4),
    "bitfit": (15, 2e-2),
    "reft": (12, 1e-2),
    "prefix": (20, 1e-1),
    "lora": (8, 3e-3),
    "rslora": (10, 3e-3),
    "dora": (8, 3e-3),
    "adalora": (20, 2e-2),
    "loha": (12, 6e-3),
    "ia3": (15, 5e-2),
    "vera": (15, 3e-2),
    "oft": (12, 3e-3),
    "ln_tuning": (15, 3e-2),
    "paper_edit": (12, 1e-2),
    "paper_lora": (8, 2e-3),
    "paper_dora": (8, 2e-3),
    "paper_loreft": (15, 1e-2),
    "paper_loreft_all": (15, 1e-2),
}
"""The most epochs, and the learning rate, by which each knows thirty-two answers by heart."""
SAME = {
    "random": "edit",
    "peft_adapter": "lora",
    "edit_representation": "paper_edit",
    "paper_edit_one_rate": "paper_edit",
    "task_vector": "full_located",
}
"""Those that train the same as another once their rate and their layers are."""


@cache
def options() -> dict[str, MethodSettings]:
    """Every option of the group `method` that trains."""
    files = {f.relative_to(ROOT / "conf/method").with_suffix("") for f in (ROOT / "conf/method").rglob("*.yaml")}
    names = sorted(map(str, files | {Path(name) for name in METHODS}))
    register()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        settings = settings_from(compose("train", ["data=sample", f"method=[{','.join(names)}]"])).method
    return {name: method for name, method in settings.items() if method_of(method).trains}


def tiny(name: str) -> LanguageModel:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=H,
        intermediate_size=INNER,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KV,
        attention_bias=name == "bitfit",
        mlp_bias=name == "bitfit",
    )
    model = AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    return LanguageModel("tiny", "tiny", model, context(model).lm.tokenizer, "0")


def adapted_at(lm: LanguageModel, settings: MethodSettings, layers: list[int], rank: int) -> AdaptedModel:
    """What the method trains, in these layers or, where its own localizer says so, in all."""
    parts = (Part.attn, Part.mlp)
    everywhere = getattr(settings, "locate", None) == "all"
    sites = every_layer(lm.runner, parts) if everywhere else [Site(layer, part) for layer in layers for part in parts]
    return adapt(replace(context(lm.model), lm=lm), settings, plan_of(lm.runner, sites, rank, "manual"))


def test_every_option_that_trains_is_here() -> None:
    with_data = {"lofit"}  # it chooses by training data what trains: tests/methods/test_lofit.py
    assert set(FORMULAS) | with_data == set(options())
    own_tests = {"jola", "solve", "amplify", "probe"}  # of learning, beside their other tests
    assert set(FORMULAS) == set(LEARNS) | set(SAME) | own_tests


@pytest.mark.parametrize("name", FORMULAS)
def test_trains_as_many_parameters_as_its_formula_says(name: str) -> None:
    settings = _steps(options()[name], 10)
    assert adapted_at(tiny(name), settings, [1, 2], RANK).count() == FORMULAS[name]


def _steps(settings: MethodSettings, steps: int) -> MethodSettings:
    """AdaLoRA is told how long it trains by the training data, of which the context has none."""
    if getattr(settings, "config", None) == "AdaLoraConfig":
        return replace(settings, options={**settings.options, "total_step": steps})  # type: ignore[call-arg, attr-defined]
    return settings


class Learned(Exception):
    """Enough is known by heart."""


@pytest.mark.slow
@pytest.mark.parametrize("name", LEARNS)
def test_learns_thirty_two_answers_by_heart(name: str, bundled, biased) -> None:
    lm, (epochs, rate) = biased if name == "bitfit" else bundled, LEARNS[name]
    examples = absa_edit.read("laptop-sample").train.examples[:32]
    settings = _steps(options()[name], 4 * epochs)
    rates = {key: rate for key in ("lr", "representation_lr") if hasattr(settings, key)}
    adapted = adapted_at(lm, replace(settings, **rates), list(range(2, 8)), 4)  # type: ignore[arg-type]
    ctx = context(lm.model)
    prompts, gold = ctx.encode(replace(ctx.splits.train, examples=examples)), [e.label for e in examples]

    def accuracy() -> float:
        scores = log_probabilities(adapted, prompts, ctx.labels, batch_tokens=1024)
        return float(np.mean([list(ctx.labels)[i] == label for i, label in zip(scores.argmax(1), gold, strict=True)]))

    def evaluate() -> dict[str, float]:
        now = accuracy()
        if now >= 0.95:
            raise Learned
        return {"dev_accuracy": now, "dev_macro_f1": now}

    assert accuracy() < 0.9, "there is something to learn"
    chosen = FitSettings(epochs=epochs, batch_size=8, patience=epochs)
    with suppress(Learned):
        fit(adapted, prompts, ctx.labels, chosen, evaluate, seed=0)
    assert accuracy() >= 0.95
