"""LoFiT: the scales that choose heads against a plain loop, what is chosen, and that it is chosen once."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from contexts import adapt, context
from runs import execute, small_run
from torch import Tensor

import absa_edit
from absa_edit.context import Context
from absa_edit.errors import DataError, FitError, SettingsError
from absa_edit.inference.classifier import Classifier
from absa_edit.localizers.plan import plan_of
from absa_edit.localizers.settings import LocateSettings
from absa_edit.methods import base, lofit
from absa_edit.methods.lofit import Lofit
from absa_edit.model.hooks import entering
from absa_edit.model.loading import LanguageModel
from absa_edit.model.settings import Precision
from absa_edit.pipeline.stages import methods as method_stage
from absa_edit.records import Example, Part, Site
from absa_edit.settings import Stage
from absa_edit.training import fitting
from absa_edit.training.distributed import Job
from absa_edit.training.loop import fit
from absa_edit.training.settings import FitSettings

QUICK = Lofit(choosing_steps=6, choosing_lr=0.05, l1=1e-3)


def with_data(lm: LanguageModel, examples: tuple[Example, ...], folder: Path = Path()) -> Context:
    """A context with training data."""
    settings = FitSettings(batch_size=3, precision=Precision.float32)
    return replace(Context.of(lm, train=examples, fit=settings), folder=folder)


def norms_by_hand(ctx: Context, layers: list[int], settings: Lofit) -> np.ndarray:
    """The scales' norms after as many steps of a plain loop: full forward passes, with hooks."""
    model, runner, prompts = ctx.lm.model, ctx.lm.runner, ctx.encode(ctx.splits.train)
    words = sorted(token for word in ctx.labels.values() for token in word)
    scales = {layer: torch.zeros(32, requires_grad=True) for layer in layers}
    optimizer = torch.optim.AdamW(scales.values(), weight_decay=0.0)

    def loss(prompt) -> Tensor:
        logits = model(input_ids=torch.tensor([prompt.ids]), use_cache=False).logits[:, -1, words]
        gold = words.index(ctx.labels[prompt.example.label][0])
        return torch.nn.functional.cross_entropy(logits, torch.tensor([gold]))

    batches = lofit._batches(len(prompts), 3, ctx.rng("scales of heads"))
    for step, batch in enumerate(islice(batches, settings.choosing_steps)):
        for group in optimizer.param_groups:
            group["lr"] = settings.choosing_lr * (1 - step / settings.choosing_steps)
        hooks = [
            entering(runner.module(Site(layer, Part.attn)), lambda z, a=scale: z * (1 + a))
            for layer, scale in scales.items()
        ]
        for hook in hooks:
            hook.__enter__()
        total = sum(loss(prompts[i]) for i in batch) / len(batch)
        (total + settings.l1 * sum(scale.abs().sum() for scale in scales.values())).backward()
        for hook in hooks:
            hook.__exit__(None, None, None)
        optimizer.step()
        optimizer.zero_grad()
    return np.array([scale.detach().view(4, 8).norm(dim=1).tolist() for scale in scales.values()])


@pytest.mark.parametrize("layers", [[0, 1, 2], [1]])
def test_scales_learn_as_in_a_plain_loop_and_choose_heads_by_their_norms(small, examples, layers) -> None:
    ctx = with_data(small, examples)
    expected = norms_by_hand(ctx, layers, QUICK)
    np.testing.assert_allclose(lofit.LocalizedOffsets()._learnt(ctx, layers, QUICK).norms, expected, atol=1e-4)
    located = replace(QUICK, heads=0.25, located=len(layers) < 3)
    plan = plan_of(small.runner, [Site(layer, Part.mlp) for layer in layers], 1, "manual") if located.located else None
    adapted = base.adapt(ctx, located, plan)
    strongest = np.argsort(-expected, axis=None)[: len(layers)]
    chosen = [Site(layers[i // 4], Part.head, int(i % 4)) for i in strongest]
    assert [target.site for target in adapted.plan.targets] == sorted(chosen)
    assert adapted.plan.source == "lofit" and adapted.plan.parameters == adapted.count() == 8 * len(layers)
    assert adapted.start == min(site.layer for site in chosen)


def test_trainable_counts_by_hand(small, examples) -> None:
    """The tiny Llama: twelve heads, eight wide."""
    ctx = with_data(small, examples)
    for share, heads in ((0.01, 1), (0.25, 3), (1.0, 12)):
        adapted = base.adapt(ctx, replace(QUICK, heads=share), None)
        assert adapted.count() == heads * 8 and len(adapted.plan.targets) == heads
        assert adapted.touched == 0, "its projections have no bias"
    assert Lofit().heads == 0.1


def test_a_plan_of_heads_is_taken_as_it_is(small) -> None:
    heads = [Site(0, Part.head, 2), Site(2, Part.head, 1), Site(2, Part.head, 3)]
    plan = plan_of(small.runner, heads, 2, "manual")
    adapted = adapt(small.model, Lofit(located=True), plan, seed=0)
    assert adapted.plan == plan and adapted.count() == 3 * 8
    names = [name.partition("layers.")[2] for name in adapted.trainable()]
    assert names == [
        "0.self_attn.o_proj.offsets.2",
        "2.self_attn.o_proj.offsets.1",
        "2.self_attn.o_proj.offsets.3",
    ]


def test_heads_are_chosen_once(small, examples, tmp_path, monkeypatch) -> None:
    ctx = with_data(small, examples, tmp_path)
    first = base.adapt(ctx, QUICK, None)

    def reached(*_: object) -> None:
        raise AssertionError("chosen again")

    monkeypatch.setattr(lofit, "_learn", reached)
    assert base.adapt(ctx, QUICK, None).plan == first.plan
    # other offsets and another share of heads need no other scales
    assert len(base.adapt(ctx, replace(QUICK, lr=0.3, heads=0.5), None).plan.targets) == 6
    # from the plan alone, without data, as a folder or another process has it
    assert adapt(small.model, QUICK, first.plan, seed=0).plan == first.plan
    for changed in (replace(QUICK, l1=0.1), replace(QUICK, choosing_steps=7)):
        with pytest.raises(AssertionError, match="chosen again"):
            base.adapt(ctx, changed, None)


def test_without_a_folder_nothing_is_written(small, examples, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    base.adapt(with_data(small, examples), QUICK, None)
    assert not list(tmp_path.iterdir())


def test_without_training_examples_there_is_nothing_to_choose_by(small) -> None:
    with pytest.raises(DataError, match="which heads are chosen by; take a plan of heads"):
        adapt(small.model, QUICK, None, seed=0)


def test_a_loss_that_is_no_number_says_what_to_do(small, examples) -> None:
    with pytest.raises(FitError, match="lower the method's choosing_lr"):
        base.adapt(with_data(small, examples), replace(QUICK, l1=float("inf")), None)


@pytest.mark.parametrize("wrong", [{"heads": 0.0}, {"heads": 1.5}, {"choosing_steps": 0}, {"l1": -1.0}])
def test_settings_that_make_no_sense_are_refused(wrong) -> None:
    with pytest.raises(SettingsError, match="expected"):
        Lofit(**wrong)


def test_a_run_exports_the_heads_that_it_chose(tmp_path, monkeypatch) -> None:
    jobs: list[Job] = []
    monkeypatch.setattr(fitting, "announce", lambda job, device: jobs.append(job))
    method = Lofit(lr=5e-2, choosing_steps=4)
    run, record, _ = execute(small_run(tmp_path, method={"lofit": method}))
    row, export = record.methods["lofit"], record.export
    # other processes train the same heads, and find that it is the same training
    assert [(job.plan, job.key) for job in jobs] == [(row.plan, method_stage.fit_key(run, "lofit", method, row.plan))]
    assert row.plan and row.plan.source == "lofit" and len(row.plan.targets) == 6 == row.trainable / 64
    assert export and (export.adapter, export.merged, export.agreement) == ("export/adapter", None, 1.0)
    assert "the output projections have none" in export.not_merged
    loaded = absa_edit.load(run.folder)
    assert loaded.adapted.plan == row.plan
    examples = run.splits.tests[0].examples
    rows = [list(answer.values()) for answer in loaded.answer(examples)]
    assert np.array(rows).shape == (len(examples), 3)
    assert (run.folder / "lofit").is_dir() and f"head.{row.plan.targets[0].site.index}@" in _card(run.folder)


def _card(folder: Path) -> str:
    return (folder / "export" / "adapter" / "README.md").read_text()


def test_located_heads_are_the_plans_own(tmp_path) -> None:
    heads = LocateSettings(kind="manual", layers=[7], parts=[Part.head])
    stages = [Stage.locate, Stage.methods]
    run, record, _ = execute(small_run(tmp_path, method={"lofit": Lofit(located=True)}, locate=heads, stages=stages))
    assert record.methods["lofit"].plan == record.plan and record.methods["lofit"].trainable == 5 * 64
    assert not (run.folder / "lofit").exists()


def test_a_localizer_goes_with_located() -> None:
    with pytest.raises(SettingsError, match=r"locate=random goes with method\.<name>\.located=true"):
        Lofit(locate="random")
    assert Lofit(locate="random", located=True).located


class Known(Exception):
    """Nearly all answers are known by heart."""


@pytest.mark.slow
def test_it_knows_thirty_two_answers_by_heart(bundled) -> None:
    """With all heads: a tenth of reviewlm's sixty are few."""
    data = absa_edit.read("laptop-sample")
    known = replace(data.train, examples=data.train.examples[:32])
    ctx = replace(context(bundled.model), splits=replace(data, train=known))
    adapted = base.adapt(ctx, Lofit(lr=0.05, heads=1.0, choosing_steps=1), None)
    classifier = Classifier(bundled, adapted, ctx.settings.prompt, ctx.task)

    def accuracy() -> float:
        return classifier.score(known, draws=1).accuracy.value

    def evaluate() -> dict[str, float]:
        if accuracy() >= 0.95:
            raise Known
        return {"dev_accuracy": 0.0, "dev_macro_f1": 0.0}

    assert accuracy() < 0.9, "there is something to learn"
    settings = FitSettings(epochs=30, batch_size=4, patience=30, precision=Precision.float32)
    with pytest.raises(Known):
        fit(adapted, ctx.encode(known), ctx.labels, settings, evaluate, seed=0)
