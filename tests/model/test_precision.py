"""What the machine decides: bfloat16 products only where it has units for them, unless the settings say more."""

from __future__ import annotations

import pytest
from torch import nn

from absa_edit.errors import SettingsError
from absa_edit.model import precision
from absa_edit.model.precision import of_trace, of_training
from absa_edit.model.settings import Dtype, Precision
from absa_edit.tracing.settings import Engine


@pytest.mark.parametrize(("units", "products"), [(True, Precision.bf16), (False, Precision.float32)])
def test_training_follows_the_machine_unless_it_is_told(monkeypatch, units, products) -> None:
    monkeypatch.setattr(precision, "has_bfloat16_units", lambda device: units)
    model = nn.Linear(2, 2)
    assert of_training(None, model) is products
    assert [of_training(told, model) for told in Precision] == [*Precision]
    assert of_training("float32", model) is Precision.float32  # as it may come from Python
    assert of_training(None, model.half()) is Precision.bf16


@pytest.mark.parametrize("units", [True, False])
@pytest.mark.parametrize("engine", Engine)
def test_only_estimates_follow_the_machine(monkeypatch, units, engine) -> None:
    monkeypatch.setattr(precision, "has_bfloat16_units", lambda device: units)
    rounds, model = units and engine is not Engine.exact, nn.Linear(2, 2)
    assert of_trace(None, model, estimated=engine is not Engine.exact) is (Dtype.bfloat16 if rounds else Dtype.float32)
    assert [of_trace(told, model, estimated=engine is not Engine.exact) for told in Dtype] == [*Dtype]


def test_float16_weights_are_not_rounded_once_more(monkeypatch) -> None:
    monkeypatch.setattr(precision, "has_bfloat16_units", lambda device: True)
    model = nn.Linear(2, 2).half()
    assert of_trace(None, model, estimated=True) is Dtype.float32
    with pytest.raises(SettingsError, match="weights are float16"):
        of_trace(Dtype.bfloat16, model, estimated=False)
