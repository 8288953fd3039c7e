"""JoLA's gates: their values, their noise, their price, and that they close where a price says so."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from contexts import adapt, context
from runs import execute, small_run

import absa_edit
from absa_edit.errors import SettingsError
from absa_edit.inference.classifier import Classifier
from absa_edit.localizers.plan import plan_of
from absa_edit.methods.jola import GatedHeads, Jola
from absa_edit.model.settings import Precision
from absa_edit.records import Part, Site
from absa_edit.training.loop import fit
from absa_edit.training.loss import AnswerLoss
from absa_edit.training.settings import FitSettings


def edits_of(adapted) -> list[GatedHeads]:
    return [module for module in adapted.model.modules() if isinstance(module, GatedHeads)]


@pytest.fixture
def adapted(small):
    return adapt(small.model, Jola(), None, seed=0)


@pytest.fixture
def uneven(adapted):
    """With gates from closed to open."""
    with torch.no_grad():
        for edit in edits_of(adapted):
            edit.log_alpha.copy_(torch.linspace(-4, 4, 8).view(2, 4))
    return adapted


def test_trainable_counts_by_hand(small) -> None:
    """The tiny Llama: three layers of four heads, eight wide."""
    a_layer = 2 * 4 * 8 + 2 * 4
    everywhere = adapt(small.model, Jola(), None, seed=0)
    assert (everywhere.count(), everywhere.touched, everywhere.start) == (3 * a_layer, 3 * 32 * 32, 0)
    assert everywhere.plan is None
    plan = plan_of(small.runner, [Site(1, Part.mlp), Site(2, Part.attn), Site(2, Part.mlp)], 1, "manual")
    located = adapt(small.model, Jola(located=True), plan, seed=0)
    assert (located.count(), located.touched, located.start) == (2 * a_layer, 2 * 32 * 32, 1)
    assert located.plan == plan
    assert adapt(small.model, Jola(), plan, seed=0).count() == 3 * a_layer, "the plan is none of its business"


def test_the_penalty_is_the_expected_number_of_open_gates(uneven) -> None:
    gates = [a for edit in edits_of(uneven) for a in edit.log_alpha.flatten().tolist()]
    assert len(gates) == 3 * 8
    expected = sum(1 / (1 + math.exp(-(a - 0.33 * math.log(0.1 / 1.1)))) for a in gates)
    assert uneven.penalty is not None
    assert float(uneven.penalty().detach()) == pytest.approx(4e-5 * expected)
    edit = edits_of(uneven)[0]
    edit.train()
    torch.manual_seed(0)
    with torch.no_grad():
        share = torch.stack([(edit.gates() > 0).double() for _ in range(4000)]).mean(0)
    assert float(share.sum()) == pytest.approx(float(edit.expected_open().detach()), abs=0.05)
    assert float(share[0, 0]) < 0.2 < 0.9 < float(share[1, 3])


def test_gates_are_drawn_while_training_alone(uneven) -> None:
    edit = edits_of(uneven)[0]
    log_alpha = edit.log_alpha.detach()
    by_hand = (1.2 / (1 + torch.exp(-log_alpha)) - 0.1).clamp(0, 1)
    assert torch.equal(edit.gates(), edit.gates())
    torch.testing.assert_close(edit.gates(), by_hand)
    assert edit.gates()[0, 0] == 0 and edit.gates()[1, 3] == 1
    uneven.modes(training=True)
    torch.manual_seed(3)
    first, second = edit.gates(), edit.gates()
    assert not torch.equal(first, second)
    torch.manual_seed(3)
    assert torch.equal(edit.gates(), first)
    torch.manual_seed(3)
    uniform = torch.rand(2, 4) * (1 - 2e-6) + 1e-6
    noisy = torch.sigmoid((uniform.log() - (1 - uniform).log() + log_alpha) / 0.33)
    torch.testing.assert_close(first, (1.2 * noisy - 0.1).clamp(0, 1))
    uneven.modes(training=False)
    torch.testing.assert_close(edit.gates(), by_hand)


def test_all_examples_of_a_batch_meet_the_same_gates(adapted, prompts, labels, monkeypatch) -> None:
    calls, gates = [], GatedHeads.gates
    monkeypatch.setattr(GatedHeads, "gates", lambda edit: calls.append(id(edit)) or gates(edit))
    objective = AnswerLoss(adapted, prompts, labels, cache_gib=1.0)
    calls.clear()
    adapted.modes(training=True)
    objective([0, 2, 5])
    assert calls == [id(edit) for edit in edits_of(adapted)]


def test_a_high_price_closes_the_gates(small, prompts, labels) -> None:
    settings = FitSettings(epochs=8, batch_size=2, patience=9, precision=Precision.float32)
    shares = []
    for l0 in (0.0, 1.0):
        adapted = adapt(small.model, Jola(lr=0.2, l0=l0), None, seed=0)
        rising = iter(range(1, 99))
        fit(adapted, prompts, labels, settings, lambda r=rising: {"dev_macro_f1": float(next(r))}, seed=1)
        shares.append(float(torch.cat([(edit.gates() > 0).float().flatten() for edit in edits_of(adapted)]).mean()))
    assert shares[1] < 0.1 and shares[0] > 0.5


def test_a_negative_price_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"l0=-1.0: expected 0 or more"):
        Jola(l0=-1.0)


def test_a_run_exports_what_reloads(tmp_path) -> None:
    chosen = small_run(tmp_path, method={"jola": Jola(lr=5e-2, located=True)})
    run, record, _ = execute(chosen)
    row, export = record.methods["jola"], record.export
    assert row.trainable == 2 * (2 * 320 + 2 * 5) and row.plan == record.plan and row.frozen_checked
    assert export and (export.adapter, export.merged, export.agreement) == ("export/adapter", None, 1.0)
    assert "the output projections have none" in export.not_merged
    examples = run.splits.tests[0].examples
    assert len(absa_edit.load(run.folder).answer(examples)) == len(examples)


def test_a_localizer_goes_with_located() -> None:
    with pytest.raises(SettingsError, match=r"locate=random goes with method\.<name>\.located=true"):
        Jola(locate="random")
    assert Jola(locate="random", located=True).located


class Known(Exception):
    """Nearly all answers are known by heart."""


@pytest.mark.slow
def test_it_knows_thirty_two_answers_by_heart(bundled) -> None:
    data = absa_edit.read("laptop-sample").train
    ctx = context(bundled.model)
    known = replace(data, examples=data.examples[:32])
    adapted = adapt(bundled.model, Jola(lr=0.1), None, seed=0)
    classifier = Classifier(bundled, adapted, ctx.settings.prompt, ctx.task)

    def accuracy() -> float:
        return classifier.score(known, draws=1).accuracy.value

    def evaluate() -> dict[str, float]:
        if accuracy() >= 0.95:
            raise Known
        return {"dev_accuracy": 0.0, "dev_macro_f1": 0.0}

    assert accuracy() < 0.9, "there is something to learn"
    settings = FitSettings(epochs=25, batch_size=4, patience=25, precision=Precision.float32)
    with pytest.raises(Known):
        fit(adapted, ctx.encode(known), ctx.labels, settings, evaluate, seed=0)
