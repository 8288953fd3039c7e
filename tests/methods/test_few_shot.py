"""Shots and calibration of models that are not trained: alone, in a run, and from Python."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from contexts import context
from runs import ROOT, execute, settings

import absa_edit
from absa_edit.api import Model, read
from absa_edit.context import Context
from absa_edit.data.prompts import CONTENT_FREE, encode
from absa_edit.data.settings import DataSettings, PromptSettings
from absa_edit.data.shots import preamble_of
from absa_edit.errors import ModelError, SettingsError
from absa_edit.evaluation.predict import log_probabilities
from absa_edit.methods.base import adapt
from absa_edit.methods.few_shot import FewShot
from absa_edit.methods.low_rank_edit import Edit
from absa_edit.methods.zero_shot import ZeroShot
from absa_edit.pipeline.prepare import prepare
from absa_edit.records import Example
from absa_edit.settings import Stage
from absa_edit.tasks.absc import ABSC
from absa_edit.tracing.settings import TraceSettings

ALONE = {"stages": [Stage.methods], "data": DataSettings(name="laptop-sample", limit_train=40, limit_test=8)}
ROOMY = PromptSettings(max_tokens=1024)
FILLED = ABSC.prompt(ROOMY)
"""With the task's template and words."""


def scores(adapted, prompts, labels) -> np.ndarray:
    return log_probabilities(adapted, prompts, labels, batch_tokens=300)


def test_calibration_divides_by_the_mean_answer_to_inputs_that_say_nothing(small, prompts, labels) -> None:
    ctx = context(small.model)
    plain, calibrated = (adapt(ctx, ZeroShot(calibrate=c), None) for c in (False, True))
    nothing = [Example("", "", text, text, 0, len(text), "", "") for text in CONTENT_FREE]
    means = np.exp(scores(plain, encode(nothing, small.tokenizer, ctx.settings.prompt), labels)).mean(0)
    expected = np.exp(scores(plain, prompts, labels)) / means
    found = np.exp(scores(calibrated, prompts, labels))
    np.testing.assert_allclose(found, expected / expected.sum(1, keepdims=True), rtol=1e-5)
    assert np.abs(found - np.exp(scores(plain, prompts, labels))).max() > 1e-3


def test_even_answers_to_inputs_that_say_nothing_change_nothing(small, prompts, labels, monkeypatch) -> None:
    adapted = adapt(context(small.model), ZeroShot(), None)
    before, whole = scores(adapted, prompts, labels), absa_edit.evaluation.predict._scores
    even = np.full((3, len(labels)), -math.log(len(labels)))
    monkeypatch.setattr(
        "absa_edit.evaluation.predict._scores",
        lambda one, asked, *rest: even if asked is nothing else whole(one, asked, *rest),
    )
    nothing = tuple(prompts[:3])
    np.testing.assert_allclose(scores(replace(adapted, content_free=nothing), prompts, labels), before, atol=1e-12)


@pytest.mark.slow
def test_a_run_of_few_shot_beside_methods_with_the_runs_prompt(tmp_path) -> None:
    """Its answers are those of the base model after the text that the seed draws; other methods' do not change."""
    methods = {"zero_shot": ZeroShot(), "few_shot": FewShot(shots=4, calibrate=True), "edit": Edit(lr=2e-3)}
    chosen = settings(tmp_path, **ALONE, prompt=ROOMY, method=methods)
    chosen = replace(
        chosen, stages=[Stage.locate, Stage.methods], locate=replace(chosen.locate, kind="manual", layers=[4, 5])
    )
    run, record, shown = execute(chosen)
    kept = json.loads((run.folder / "results.json").read_text())["methods"]
    assert list(kept) == list(record.methods) == list(methods) and "few_shot" in shown
    few = record.methods["few_shot"]
    assert (few.kind, few.trainable, few.fit, few.plan) == ("few_shot", 0, None, None)
    rows = [json.loads(line) for line in (run.folder / "methods/few_shot/predictions.jsonl").read_text().splitlines()]
    asked = replace(run.settings.prompt, preamble=preamble_of(run.shots(4), run.task.labels, run.settings.prompt))
    adapted = adapt(run, methods["few_shot"], None)
    expected = np.exp(scores(adapted, encode(run.splits.tests[0].examples, run.lm.tokenizer, asked), run.labels))
    np.testing.assert_allclose([list(row["probabilities"].values()) for row in rows], expected, atol=1e-5)
    assert adapted.content_free[0].preamble > 50
    without = replace(
        chosen, output=str(tmp_path / "without"), method={"zero_shot": ZeroShot()}, stages=[Stage.methods]
    )
    assert execute(without)[1].methods["zero_shot"].scores == record.methods["zero_shot"].scores


def test_shots_of_a_run_are_of_its_training_data_and_by_its_seed(tmp_path) -> None:
    chosen = settings(tmp_path, prompt=replace(ROOMY, shots=6))
    run, same, other = (prepare(replace(chosen, seed=seed), root=ROOT) for seed in (0, 0, 1))
    shots = run.shots(6)
    assert shots == same.shots(6) != other.shots(6)
    train = {e.sentence_id for e in run.splits.train.examples}
    held_out = {e.text for split in (run.splits.dev, *run.splits.tests) for e in split.examples}
    assert {shot.sentence_id for shot in shots} <= train and not {shot.text for shot in shots} & held_out
    assert run.settings.prompt.preamble == preamble_of(shots, run.task.labels, FILLED)
    assert run.settings.prompt.preamble == same.settings.prompt.preamble != other.settings.prompt.preamble
    assert all(p.preamble > 100 for p in run.encode(run.splits.tests[0]))
    # one group of seeds, but nothing kept of one is found by the other
    assert run.config_hash() == other.config_hash() and run.key() == same.key() != other.key()
    assert run.config_hash() != prepare(settings(tmp_path, prompt=ROOMY), root=ROOT).config_hash()


def test_no_sentence_of_a_shot_is_traced(tmp_path) -> None:
    trace = TraceSettings(examples=10_000)
    none, some = (prepare(settings(tmp_path, prompt=replace(ROOMY, shots=k), trace=trace), root=ROOT) for k in (0, 6))
    shown = {shot.sentence_id for shot in some.shots(6)}
    every = [e.id for e in none.splits.train.examples]
    assert [p.example.id for p in none.prompts_to_trace()] == every
    left = [e.id for e in some.splits.train.examples if e.sentence_id not in shown]
    assert [p.example.id for p in some.prompts_to_trace()] == left != every


@pytest.mark.slow
def test_a_run_traced_and_edited_after_shots(tmp_path) -> None:
    methods = {"zero_shot": ZeroShot(), "edit": Edit(lr=2e-3)}
    run, record, _ = execute(
        settings(tmp_path, prompt=replace(ROOMY, shots=2), method=methods, **{"data": ALONE["data"]},
                 stages=[s for s in Stage if s is not Stage.report])
    )  # fmt: skip
    assert record.trace and record.export and record.export.agreement == 1.0
    (test,) = (t for t in run.splits.tests if t.name == "laptop-sample")
    asked = absa_edit.load(run.folder).predict([e.text for e in test.examples], [e.aspect for e in test.examples])
    rows = [json.loads(line) for line in (run.folder / "methods/edit/predictions.jsonl").read_text().splitlines()]
    for row, answer in zip(rows, asked, strict=False):
        np.testing.assert_allclose(list(answer.values()), list(row["probabilities"].values()), atol=1e-4)
    assert "after the text `prompt.preamble`" in (run.folder / "export/adapter/README.md").read_text()


def test_what_does_not_go_together_is_told_at_once(tmp_path) -> None:
    both = PromptSettings(shots=2, preamble="Well: ")
    with pytest.raises(SettingsError, match=r"prompt\.shots=2 and prompt\.preamble are both given"):
        prepare(settings(tmp_path, prompt=both), root=ROOT)
    with pytest.raises(SettingsError, match=r"shots=0: expected 1 or more; zero_shot takes none"):
        FewShot(shots=0)
    with pytest.raises(SettingsError, match=r"give their text as prompt\.preamble"):
        Model(prompt=PromptSettings(shots=2))
    with pytest.raises(ModelError, match=r"of them shots .* take fewer shots"):
        execute(
            settings(tmp_path, **ALONE, prompt=PromptSettings(max_tokens=150), method={"few_shot": FewShot(shots=6)})
        )


@torch.no_grad()
@pytest.mark.parametrize("calibrate", [False, True])
def test_from_python_saved_and_loaded(tmp_path, calibrate) -> None:
    data = read("laptop-sample", limit_test=6)
    classifier = Model(prompt=ROOMY, device="cpu").edit(None, data, method=FewShot(shots=3, calibrate=calibrate))
    pairs = [[e.text for e in data.tests[0].examples], [e.aspect for e in data.tests[0].examples]]
    before = classifier.predict(*pairs)
    classifier.save(tmp_path / "few")
    after = absa_edit.load(tmp_path / "few", device="cpu").predict(*pairs)  # weights that lie elsewhere in memory
    for reloaded, kept in zip(after, before, strict=True):
        assert reloaded == pytest.approx(kept, rel=1e-5)
    bare = replace(classifier, adapted=replace(classifier.adapted, content_free=()))
    assert (bare.predict(*pairs) != before) == calibrate
    ctx = Context.of(classifier.lm, classifier.task, data.train.examples, prompt=FILLED)
    assert classifier.prompt.preamble == ctx.prompt_with(3).preamble
