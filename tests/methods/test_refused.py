"""A method that cannot train a model is refused before anything is trained, or traced."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from contexts import adapt
from runs import execute, small_run

from absa_edit.api import Model, read
from absa_edit.errors import AbsaEditError, PlanError
from absa_edit.localizers.plan import plan_of
from absa_edit.localizers.settings import LocateSettings
from absa_edit.methods.delta import Delta
from absa_edit.methods.lora import Lora
from absa_edit.methods.low_rank_edit import Edit
from absa_edit.methods.peft_adapter import PeftAdapter
from absa_edit.methods.settings import MethodSettings
from absa_edit.records import Part, Role, Site
from absa_edit.settings import Stage

ANYWHERE = [
    (Edit(representation=True, representation_rank=5000), r"method\.edit\.representation_rank=5000: expected 1 to 320"),
    (PeftAdapter(targets=["q_prj"]), r"no module of the model's blocks ends so"),
]
"""Refused whatever the plan is."""


def untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    """No method is made, no model traced."""

    def reached(*_: Any, **__: Any) -> None:
        raise AssertionError("too late")

    for name in ("execute.traced_context", "execute.run_method", "stages.methods.adapt"):
        monkeypatch.setattr(f"absa_edit.pipeline.{name}", reached)


@pytest.mark.parametrize(("method", "message"), ANYWHERE, ids=["rank", "targets"])
def test_as_the_run_begins(tmp_path: Path, monkeypatch, method: MethodSettings, message: str) -> None:
    untouched(monkeypatch)
    methods = {"lora": Lora(), "wrong": method}
    stages = [Stage.trace, Stage.locate, Stage.methods]
    with pytest.raises(AbsaEditError, match=message) as error:
        execute(small_run(tmp_path, method=methods, stages=stages))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("method", [Delta(), PeftAdapter(targets=["plan"])], ids=["delta", "adapter"])
def test_a_method_without_its_plan(tmp_path: Path, monkeypatch, method: MethodSettings) -> None:
    untouched(monkeypatch)
    with pytest.raises(PlanError, match="needs a plan: add `locate` to stages"):
        execute(small_run(tmp_path, method={"lora": Lora(), "wrong": method}, stages=[Stage.methods]))


def test_a_plan_that_a_later_method_cannot_train(tmp_path: Path, monkeypatch) -> None:
    untouched(monkeypatch)
    heads = LocateSettings(kind="manual", layers=[4], parts=[Part.head])
    last = LocateSettings(kind="manual", layers=[11], parts=[Part.attn])
    for located, method, message in (
        (heads, Delta(), "method delta trains whole matrices"),
        (last, Edit(representation=True), "nothing reads the last block at aspect_again"),
    ):
        with pytest.raises(PlanError, match=message):
            execute(small_run(tmp_path, method={"edit": Edit(), "wrong": method}, locate=located))


def test_the_last_block_is_read_at_the_last_token(small) -> None:
    plan = plan_of(small.runner, [Site(2, Part.attn)], 2, "manual")
    edited = adapt(small.model, Edit(representation=True, position=Role.last), plan, seed=0)
    assert edited.representation is not None and edited.representation.layers == (2,)


def test_from_python(monkeypatch) -> None:
    monkeypatch.setattr("absa_edit.api.fit_method", lambda *_, **__: pytest.fail("too late"))
    model, data = Model("reviewlm", device="cpu"), read("laptop-sample", limit_train=8, limit_test=2)
    for method, message in ANYWHERE:
        with pytest.raises(AbsaEditError, match=message):
            model.edit(model.plan(kind="manual", layers=[4]), data, method=method)


def test_a_method_that_trains_no_sites_is_given_no_plan(small) -> None:
    plan = plan_of(small.runner, [Site(1, Part.attn)], 2, "manual")
    assert adapt(small.model, PeftAdapter(options={"r": 2}), plan, seed=0).plan is None
