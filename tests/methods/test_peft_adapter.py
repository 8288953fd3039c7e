"""PEFT's adapters by the name of their configuration: trained, scored, exported as PEFT writes them, loaded again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from contexts import adapt, context
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from runs import ROOT, execute, small_run

import absa_edit
from absa_edit.compose import register, settings_from
from absa_edit.errors import PlanError, SettingsError
from absa_edit.evaluation.predict import log_probabilities
from absa_edit.export.folder import merged
from absa_edit.methods import base
from absa_edit.methods.adapted_model import changed_elsewhere
from absa_edit.methods.peft_adapter import PeftAdapter
from absa_edit.methods.zero_shot import ZeroShot
from absa_edit.settings import Stage

NAMES = ("dora", "rslora", "ia3", "vera", "oft", "ln_tuning", "loha", "adalora")


def from_yaml(name: str) -> PeftAdapter:
    """The settings in `conf/method`."""
    register()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        found = settings_from(compose("train", ["data=sample", f"method={name}"])).method[name]
    assert isinstance(found, PeftAdapter)
    return found


DEFAULT = ("dora", "ia3")
"""Those that are not left to the slow tests: one that is a LoRA, one that is none."""


@pytest.mark.parametrize("name", [n if n in DEFAULT else pytest.param(n, marks=pytest.mark.slow) for n in NAMES])
def test_each_runs_from_yaml_to_a_reloaded_export(name: str, tmp_path: Path) -> None:
    chosen = small_run(tmp_path, method={name: from_yaml(name)})
    run, record, _ = execute(chosen)
    row = record.methods[name]
    assert row.kind == "peft_adapter" and row.fit and 0 < row.trainable < run.lm.model.num_parameters()
    assert row.frozen_checked and row.touched_share > 0
    assert record.plan is not None and row.plan is None, "the run's plan is none of its business"
    assert record.export and record.export.agreement == 1.0 and record.export.not_merged is None
    assert record.export.adapter and (run.folder / record.export.adapter / "adapter_model.safetensors").exists()
    assert record.export.merged and not list((run.folder / record.export.merged).glob("adapter_*"))
    examples = run.splits.tests[0].examples
    answers = absa_edit.load(run.folder / record.export.adapter).answer(examples)
    merged = absa_edit.load(run.folder / record.export.merged).answer(examples)
    for one, other in zip(answers, merged, strict=True):
        assert list(one.values()) == pytest.approx(list(other.values()), abs=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_untrained_answers_are_the_base_models(name: str, bundled, tmp_path: Path) -> None:
    ctx = context(bundled.model)
    run = small_run(tmp_path, method={})
    prompts = absa_edit.read("laptop-sample", limit_train=4)
    encoded = ctx.encode(prompts.train)
    adapted = adapt(bundled.model, _steps(from_yaml(name)), None, seed=0)
    scores = [
        log_probabilities(one, encoded, ctx.labels, batch_tokens=400)
        for one in (adapt(bundled.model, ZeroShot(), None, seed=0), adapted)
    ]
    np.testing.assert_allclose(*scores, atol=1e-4)
    assert not list(changed_elsewhere(adapted, bundled.model)) and run.method == {}


def _steps(settings: PeftAdapter) -> PeftAdapter:
    """AdaLoRA takes its steps from the training data, of which there is none here."""
    if settings.config == "AdaLoraConfig":
        settings.options = {**settings.options, "total_step": 10}
    return settings


def test_what_cannot_be_merged_is_exported_as_an_adapter_alone(tmp_path: Path, caplog) -> None:
    lily = PeftAdapter(config="LilyConfig", options={"r": 4, "stride_A": 4, "num_B": 2}, lr=1e-3)
    run, record, _ = execute(small_run(tmp_path, method={"lily": lily}, stages=[Stage.methods, Stage.export]))
    assert record.export and record.export.adapter and record.export.merged is None
    assert record.export.not_merged and "Lily cannot be folded into the weights" in record.export.not_merged
    assert not (run.folder / "export" / "merged").exists()
    assert "the adapter alone is exported" in caplog.text
    assert record.export.agreement == 1.0


def test_deltas_that_are_no_numbers_are_not_passed_over_as_an_adapter_that_cannot_be_merged(bundled) -> None:
    adapted = adapt(bundled.model, PeftAdapter(options={"r": 2}), None, seed=0)
    with torch.no_grad():
        next(iter(adapted.trainable().values())).fill_(torch.nan)
    with pytest.raises(ValueError, match="NaNs detected"):
        merged(adapted)


def test_adapters_at_the_located_sites_need_a_plan(bundled) -> None:
    located = PeftAdapter(targets=["plan"], options={"r": 2})
    with pytest.raises(PlanError, match="needs a plan"):
        adapt(bundled.model, located, None, seed=0)
    named = PeftAdapter(targets=["o_proj"], options={"r": 2})
    assert adapt(bundled.model, named, None, seed=0).count() == 12 * 2 * 2 * 320


def test_ada_lora_moves_its_budget_and_stays_near_orthonormal(bundled) -> None:
    settings = PeftAdapter(config="AdaLoraConfig", options={"init_r": 4, "target_r": 1, "total_step": 6, "tfinal": 1})
    adapted = adapt(bundled.model, settings, None, seed=0)
    assert adapted.after_step and adapted.penalty
    values = [p for n, p in adapted.model.named_parameters() if "lora_E" in n]
    with torch.no_grad():
        for value in values:
            value.uniform_(0.5, 1.0)
    before = float(adapted.penalty().detach())
    optimizer = torch.optim.SGD([p for p in adapted.trainable().values()], lr=1e-2)
    for step in range(1, 6):
        (adapted.penalty() + sum((v**2).sum() for v in values)).backward()
        optimizer.step()
        adapted.after_step(step)
        optimizer.zero_grad()
    kept = sum(int((v != 0).sum()) for v in values)
    assert kept <= len(values) * 1 + 1, "one direction a module is left, on average"
    assert float(adapted.penalty().detach()) < before


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"config": "LorraConfig"}, "LorraConfig: no such class in peft; there are .*LoraConfig"),
        ({"options": {"rnk": 3}}, "LoraConfig has no field 'rnk'"),
        ({"targets": ["q_prj"]}, "no module of the model's blocks ends so"),
        ({"config": "PrefixTuningConfig", "targets": ["peft"], "options": {"num_virtual_tokens": 4}}, "trains nothing"),
        ({"config": "OFTConfig", "options": {"r": 3, "oft_block_size": 32}}, "OFTConfig"),
    ],
)
def test_what_peft_cannot_do_is_one_line(bundled, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said) as error:
        base.adapt(context(bundled.model), PeftAdapter(**changes), None)
    assert "\n" not in str(error.value)
