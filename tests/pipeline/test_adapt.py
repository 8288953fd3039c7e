"""Adapting a model before it is traced: when, with what, and what is told of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runs import ROOT, execute, settings

from absa_edit.context import Context
from absa_edit.data.settings import DataSettings
from absa_edit.errors import AbsaEditError, SettingsError
from absa_edit.methods.low_rank_edit import Edit
from absa_edit.model.settings import ModelSettings
from absa_edit.pipeline.prepare import prepare
from absa_edit.pipeline.stages import methods as methods_stage
from absa_edit.pipeline.stages.adapt import base_on_dev, traced_context
from absa_edit.records import Role
from absa_edit.results import RunRecord
from absa_edit.settings import Settings, Stage
from absa_edit.storage import load_trace
from absa_edit.tracing.settings import AdaptSettings, TracedModel, TraceSettings


def run_settings(output: Path, model: TracedModel, *, again: bool = False, **adapt: Any) -> Settings:
    """A trace, a plan and an edit that learns nothing, on a few examples."""
    trace = TraceSettings(
        model=model,
        adapt=AdaptSettings(**{"method": "lora", "examples": 16, "epochs": 1} | adapt),
        again=again,
        examples=4,
        samples=1,
        filter=False,
        roles=[Role.aspect, Role.last],
    )
    stages = [Stage.trace, Stage.locate, Stage.methods, Stage.report]
    data = DataSettings(name="laptop-sample", limit_train=40, limit_test=8)
    return settings(output, trace=trace, stages=stages, data=data, method={"edit": Edit(lr=0.0)})


Run = tuple[Context, RunRecord, str]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The model before and after an adaptation that changes it, and again after an edit that does not."""
    return execute(run_settings(tmp_path_factory.mktemp("both"), TracedModel.both, again=True, lr=5e-3))


def test_the_adapted_model_is_traced_and_the_base_beside_it(both: Run) -> None:
    ctx, record, _ = both
    adaptation = record.adaptation
    assert adaptation is not None and adaptation.fit is not None
    assert (adaptation.adapted, adaptation.method, adaptation.fit.epochs) == (True, "lora", 1)
    assert 0 < adaptation.examples <= 16
    adapted, base = load_trace(ctx.folder / "trace"), load_trace(ctx.folder / "base" / "trace")
    assert adapted is not None and base is not None and adapted.example_ids == base.example_ids
    assert not np.allclose(adapted.clean, base.clean, atol=1e-3)
    assert record.base_trace is not None and record.base_trace.peak != record.trace.peak


def test_an_edit_that_changes_nothing_leaves_the_base_to_be_traced_again(both: Run) -> None:
    ctx, record, _ = both
    edited, base = load_trace(ctx.folder / "edited" / "trace"), load_trace(ctx.folder / "base" / "trace")
    assert np.allclose(edited.restored, base.restored, atol=1e-5, equal_nan=True)
    again = record.trace_again
    assert (again.method, again.n) == ("edit", 4)
    assert -1 <= again.agreement.rank_correlation.value <= 1


def test_both_reports_show_the_traces_beside_each_other(both: Run) -> None:
    ctx, _, _ = both
    for name in ("report.md", "report.html"):
        text = " ".join((ctx.folder / name).read_text().split())
        assert "The model was adapted before it was traced" in text and "rank correlation of the effects" in text
        for row in ("base", "adapted", "after edit"):
            assert f"| {row} |" in text or f"<td>{row}</td>" in text
    assert "figures/trace_base.png" in (ctx.folder / "report.md").read_text()
    assert (ctx.folder / "report.html").read_text().count("data:image/png;base64,") == 2


def test_the_plan_goes_to_the_base(both: Run) -> None:
    ctx, record, _ = both
    assert ctx.lm.sha256 == record.model.sha256 and record.methods["edit"].frozen_checked


def test_later_stages_find_the_adapted_trace(both: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    ctx, record, _ = both
    monkeypatch.setattr(methods_stage, "fit_to_data", None)  # nothing is trained again
    _, later, _ = execute(replace(ctx.settings, stages=[Stage.locate, Stage.methods, Stage.report]))
    assert later.trace == record.trace and later.adaptation == record.adaptation and later.plan == record.plan


def test_runs_share_the_fit(both: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    ctx, record, _ = both
    monkeypatch.setattr(methods_stage, "fit_to_data", None)
    trace = replace(ctx.settings.trace, model=TracedModel.adapted, again=False)
    chosen = replace(ctx.settings, name="other", trace=trace, stages=[Stage.trace])
    _, other, _ = execute(chosen)
    assert other.trace == record.trace


def test_a_fit_that_changes_nothing_leaves_the_trace_of_the_base(tmp_path: Path) -> None:
    ctx = prepare(run_settings(tmp_path, TracedModel.adapted, lr=0.0, examples=4), root=ROOT)
    traced, adaptation = traced_context(ctx)
    assert adaptation.adapted and traced.lm.sha256 != ctx.lm.sha256 and traced.trace_key() != ctx.trace_key()
    for (name, a), (_, b) in zip(traced.lm.model.named_parameters(), ctx.lm.model.named_parameters(), strict=True):
        assert a.equal(b), name


def test_a_base_that_knows_the_task_is_traced_itself(tmp_path: Path) -> None:
    chosen = run_settings(tmp_path, TracedModel.auto)
    ctx = prepare(replace(chosen, data=DataSettings(name="laptop-sample", dev_share=0.05)), root=ROOT)
    traced, adaptation = traced_context(ctx)
    assert traced is ctx and not adaptation.adapted
    assert adaptation.base_macro_f1.low > adaptation.by_frequency == 1 / 3
    assert base_on_dev(ctx) == adaptation.base_macro_f1


def test_a_base_that_knows_nothing_is_adapted(small: Any, tmp_path: Path) -> None:
    small.model.save_pretrained(tmp_path / "random")
    small.tokenizer.save_pretrained(tmp_path / "random")
    chosen = run_settings(tmp_path / "out", TracedModel.auto)
    chosen = replace(chosen, model=ModelSettings(name=str(tmp_path / "random"), device="cpu"), stages=[Stage.trace])
    ctx, record, _ = execute(chosen)
    adaptation = record.adaptation
    assert adaptation.adapted and adaptation.base_macro_f1.low <= adaptation.by_frequency
    told = (ctx.folder / "report.md").read_text()
    assert adaptation.base_macro_f1.percent() in told and "33.3 that label frequencies alone give" in told


@pytest.mark.parametrize(
    ("method", "told"),
    [
        ("edit", r"trace\.adapt\.method=edit: it needs a plan, which comes after the trace; take lora"),
        ("zero_shot", r"trace\.adapt\.method=zero_shot: it trains nothing; take lora"),
        ("lorra", r"lorra.*lora"),
        (None, r"trace\.adapt\.method: name the method .* e\.g\. lora"),
    ],
)
def test_methods_that_cannot_adapt_are_named(method: str | None, told: str, tmp_path: Path) -> None:
    ctx = prepare(run_settings(tmp_path, TracedModel.adapted, method=method), root=ROOT)
    with pytest.raises(AbsaEditError, match=told):
        traced_context(ctx)


def test_settings_are_bounded() -> None:
    for key in ("examples", "epochs"):
        with pytest.raises(SettingsError, match=rf"trace\.adapt\.{key}=0: expected at least 1"):
            AdaptSettings(**{key: 0})
