"""Methods that train some of the model's own weights: the biases, the located layers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import tiny_model
from contexts import adapt
from runs import execute, small_run

import absa_edit
from absa_edit.errors import SettingsError
from absa_edit.evaluation.predict import log_probabilities
from absa_edit.export.settings import ExportSettings
from absa_edit.localizers.plan import plan_of
from absa_edit.methods.adapted_model import AdaptedModel
from absa_edit.methods.bitfit import BitFit
from absa_edit.methods.full_located import FullLocated
from absa_edit.methods.lora import Lora
from absa_edit.model.settings import ModelSettings
from absa_edit.model.sources import reviewlm
from absa_edit.records import Part, Site
from absa_edit.training.loss import AnswerLoss


def by_plain_passes(adapted: AdaptedModel, prompts, labels) -> torch.Tensor:
    """The summed loss among the label words by the model's own forward."""
    words = [word[0] for word in labels.values()]
    total = torch.zeros(())
    for prompt in prompts:
        logits = adapted.model(input_ids=torch.tensor([prompt.ids]), use_cache=False).logits[0, -1, words]
        total = total - logits.log_softmax(-1)[list(labels).index(prompt.example.label)]
    return total


@pytest.mark.parametrize("tiny", ["gpt2", "gpt_neox", "opt", "qwen2"], indirect=True)
def test_every_bias_but_the_output_layers_and_nothing_else_trains(tiny, prompts, labels) -> None:
    adapted = adapt(tiny.model, BitFit(), None, seed=0)
    names = {name for name, _ in tiny.model.named_parameters() if name.endswith(".bias") and "head" not in name}
    assert set(adapted.trainable()) == names and adapted.start == 0
    loss = AnswerLoss(adapted, prompts, labels, cache_gib=1.0)
    loss([0, 1, 2]).backward()
    gradients = {name: p.grad.clone() for name, p in adapted.trainable().items()}
    for parameter in adapted.trainable().values():
        parameter.grad = None
    by_plain_passes(adapted, prompts[:3], labels).backward()
    largest = max(float(p.grad.abs().max()) for p in adapted.trainable().values())  # a key's bias changes no answer
    for name, parameter in adapted.trainable().items():
        torch.testing.assert_close(gradients[name] / largest, parameter.grad / largest, atol=1e-4, rtol=0)


def test_a_bias_of_the_output_layer_is_left_alone(tokenizer) -> None:
    lm = tiny_model("gptj", tokenizer)
    assert lm.model.lm_head.bias is not None
    assert "lm_head.bias" not in adapt(lm.model, BitFit(), None, seed=0).trainable()


@pytest.mark.parametrize("tiny", ["llama", "gemma3"], indirect=True)
def test_a_model_without_biases_is_refused(tiny) -> None:
    with pytest.raises(SettingsError, match=rf"bitfit trains biases, and {type(tiny.model).__name__} has none"):
        adapt(tiny.model, BitFit(), None, seed=0)


def test_a_run_refuses_it_before_anything_is_trained(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("absa_edit.pipeline.execute.run_method", lambda *_: pytest.fail("too late"))
    with pytest.raises(SettingsError, match="LlamaForCausalLM has none"):
        execute(small_run(tmp_path, method={"lora": Lora(), "bitfit": BitFit()}))


def test_located_layers_train_whole_from_cached_states(small, prompts, labels) -> None:
    plan = plan_of(small.runner, [Site(1, Part.attn), Site(1, Part.mlp), Site(2, Part.head, 1)], 2, "manual")
    adapted = adapt(small.model, FullLocated(), plan, seed=0)
    blocks = ("model.layers.1.", "model.layers.2.")
    expected = {name for name, _ in small.model.named_parameters() if name.startswith(blocks)}
    assert set(adapted.trainable()) == expected and (adapted.start, adapted.plan) == (1, plan)
    loss = AnswerLoss(adapted, prompts, labels, cache_gib=1.0)
    assert loss.frozen is not None and loss.frozen.start == 1
    totals, gradients = (loss([0, 3, 1]), by_plain_passes(adapted, [prompts[i] for i in (0, 3, 1)], labels)), []
    torch.testing.assert_close(*totals, atol=1e-4, rtol=1e-5)
    for total in totals:
        total.backward()
        gradients.append({name: p.grad.clone() for name, p in adapted.trainable().items()})
        for parameter in adapted.trainable().values():
            parameter.grad = None
    for name, gradient in gradients[1].items():
        scale = float(gradient.abs().max()) + 1e-6
        torch.testing.assert_close(gradients[0][name] / scale, gradient / scale, atol=1e-3, rtol=0)


def test_runs_export_merged_checkpoints(biased, tmp_path: Path) -> None:
    biased.model.save_pretrained(tmp_path / "biased")
    for file in Path(reviewlm()).glob("tokenizer*"):
        (tmp_path / "biased" / file.name).write_bytes(file.read_bytes())
    for name, method in (("bitfit", BitFit()), ("full_located", FullLocated())):
        chosen = small_run(
            tmp_path / name, method={name: method}, model=ModelSettings(name=str(tmp_path / "biased"), device="cpu")
        )
        run, record, _ = execute(chosen)
        assert record.export and (record.export.adapter, record.export.agreement) == (None, 1.0)
        assert record.methods[name].frozen_checked and record.methods[name].touched_share > 0
        loaded = absa_edit.load(run.folder)
        examples = run.splits.tests[0].examples
        found = log_probabilities(loaded.adapted, run.encode(run.splits.tests[0]), run.labels, batch_tokens=300)
        np.testing.assert_allclose([list(row.values()) for row in loaded.answer(examples)], np.exp(found), atol=1e-5)


def test_a_control_moves_whole_layers(tmp_path: Path) -> None:
    method = FullLocated(locate="random")
    _, record, _ = execute(small_run(tmp_path, method={"full_located": method}, export=ExportSettings(method="none")))
    row = record.methods["full_located"]
    assert row.plan is not None and len(row.plan.layers()) == 2 and row.plan.layers() != (4, 5)
