"""How far to go along what training changed: the factor, what it multiplies, and where it is refused."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from contexts import adapt

from absa_edit.context import Context
from absa_edit.data.sources import Splits
from absa_edit.errors import SettingsError
from absa_edit.evaluation.predict import log_probabilities
from absa_edit.export.folder import merged
from absa_edit.localizers.plan import plan_of
from absa_edit.methods import base as methods
from absa_edit.methods.delta import Delta
from absa_edit.methods.full import Full
from absa_edit.methods.full_located import FullLocated
from absa_edit.methods.lora import Lora
from absa_edit.methods.low_rank_edit import Edit
from absa_edit.methods.peft_adapter import PeftAdapter
from absa_edit.methods.zero_shot import ZeroShot
from absa_edit.records import Part, Site
from absa_edit.tasks.absc import ABSC
from absa_edit.training.fitting import fit_method
from absa_edit.training.scale import FACTORS, choose_scale
from absa_edit.training.settings import FitSettings

SITES = [Site(1, Part.attn), Site(1, Part.mlp)]
LINEAR = {
    "edit": Edit(),
    "delta": Delta(),
    "full": Full(),
    "full_located": FullLocated(),
    "lora": Lora(),
    "rslora": PeftAdapter(options={"r": 4, "use_rslora": True}),
    "ia3": PeftAdapter(config="IA3Config", targets=["peft"], lr=1e-2),
    "vera": PeftAdapter(config="VeraConfig", options={"r": 8}, lr=1e-2),
    "loha": PeftAdapter(config="LoHaConfig", options={"r": 4, "alpha": 8}),
    "ln_tuning": PeftAdapter(config="LNTuningConfig", targets=["peft"]),
}
REFUSED = {
    "nothing": ZeroShot(scale=True),
    "representation": Edit(scale=True, representation=True),
    "dora": PeftAdapter(scale=True, options={"r": 4, "use_dora": True}),
    "pissa": PeftAdapter(scale=True, options={"r": 4, "init_lora_weights": "pissa"}),
    "oft": PeftAdapter(scale=True, config="OFTConfig", options={"oft_block_size": 8}),
}


def test_the_factor_has_the_least_loss_and_the_tensors_stay_there() -> None:
    trained, untrained = {"a": torch.tensor([3.0, 5.0])}, {"a": torch.tensor([1.0, 1.0])}
    looked_at = []

    def evaluate() -> dict[str, float]:
        looked_at.append(trained["a"].tolist())
        return {"dev_log_loss": abs(float(trained["a"][0]) - 2.4), "dev_macro_f1": float(trained["a"][1])}

    factor, scores = choose_scale(trained, untrained, evaluate)
    assert factor == 0.75 and trained["a"].tolist() == [2.5, 4.0] and scores["dev_macro_f1"] == 4.0
    assert looked_at[:-1] == [[1 + 2 * f, 1 + 4 * f] for f in FACTORS]


@pytest.mark.parametrize("name", LINEAR)
def test_half_of_what_was_trained_is_half_of_what_the_weights_changed(small, name) -> None:
    plan = plan_of(small.runner, SITES, 2, "manual")
    adapted = adapt(small.model, LINEAR[name], plan, seed=0)
    linear = methods.method_of(LINEAR[name]).linear_in(LINEAR[name])
    scaled = {n: p for n, p in adapted.trainable().items() if linear in n}
    untrained = {n: p.detach().clone() for n, p in scaled.items()}
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in adapted.trainable().values():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    ends = {n: p.detach().clone() for n, p in scaled.items()}
    changes = []
    for factor in (1.0, 0.5):
        with torch.no_grad():
            for n, parameter in scaled.items():
                parameter.copy_(untrained[n] + factor * (ends[n] - untrained[n]))
        after = copy.deepcopy(merged(adapted)).state_dict()
        changes.append({n: after[n] - p for n, p in small.model.state_dict().items()})
    assert any(change.abs().max() > 1e-3 for change in changes[0].values())
    for n, change in changes[0].items():
        torch.testing.assert_close(changes[1][n], 0.5 * change, atol=2e-6, rtol=1e-4)


def test_a_fit_says_its_scale_and_keeps_it(small, examples, prompts, labels) -> None:
    settings = Edit(lr=5e-2, scale=True)
    ctx = Context.of(small, ABSC, examples, fit=FitSettings(epochs=2, batch_size=4))
    ctx = replace(ctx, splits=Splits(ctx.splits.train, ctx.splits.train, (), ()))
    adapted = methods.adapt(ctx, settings, plan_of(small.runner, SITES, 2, "manual"))
    losses = iter([0.5, 0.4, 0.9, 0.2, 0.7, 0.8, 0.9, 0.9, 0.2])

    def evaluate() -> dict[str, float]:
        return {"dev_accuracy": 0.0, "dev_macro_f1": 0.0, "dev_log_loss": next(losses)}

    plain = methods.adapt(ctx, replace(settings, scale=False), adapted.plan)
    fit_method(ctx, replace(settings, scale=False), plain, lambda: {"dev_accuracy": 0.0, "dev_macro_f1": 0.0})
    fitted = fit_method(ctx, settings, adapted, evaluate)
    assert fitted.scale == 0.5 and next(losses, None) is None
    for name, tensor in plain.trainable().items():
        factor = 0.5 if "lora_B" in name else 1.0
        torch.testing.assert_close(adapted.trainable()[name], factor * tensor)
    scores = [log_probabilities(a, prompts, labels, batch_tokens=400) for a in (plain, adapted)]
    assert np.abs(scores[0] - scores[1]).max() > 1e-3


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_scaled_is_refused(small, name) -> None:
    with pytest.raises(SettingsError, match=r"scale=true: what .* take scale=false"):
        methods.check(small.runner, REFUSED[name], plan_of(small.runner, SITES, 2, "manual"))
