"""Prefix tuning: against PEFT's own forward, trained, exported as PEFT writes it, refused."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import tiny_model
from contexts import adapt, context
from peft import PeftModel, PrefixTuningConfig
from runs import execute, small_run

import absa_edit
from absa_edit.data.prompts import encode
from absa_edit.data.settings import PromptSettings
from absa_edit.data.shots import preamble_of
from absa_edit.errors import CannotMerge, ModelError, SettingsError
from absa_edit.evaluation.perplexity import perplexity
from absa_edit.evaluation.predict import log_probabilities
from absa_edit.evaluation.sampled import sampled_answers
from absa_edit.export.folder import merged
from absa_edit.inference.classifier import Classifier
from absa_edit.inference.explain import explain
from absa_edit.methods.adapted_model import AdaptedModel, changed_elsewhere
from absa_edit.methods.prefix import Prefix, first_keys
from absa_edit.methods.prefix_layout import by_block, in_rows
from absa_edit.methods.zero_shot import ZeroShot
from absa_edit.model.loading import LanguageModel
from absa_edit.tasks.absc import ABSC
from absa_edit.training.loss import AnswerLoss

WORDS = {"positive": (11, 40, 41), "negative": (12,), "neutral": (13, 50)}
CHOSEN = [6, 0, 1, 4, 5, 0]


def learned(lm: LanguageModel, tokens: int = 5) -> AdaptedModel:
    adapted = adapt(lm.model, Prefix(tokens=tokens), None, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in adapted.trainable().values():
            parameter.add_(0.5 * torch.randn(parameter.shape, generator=generator))
    return adapted


def by_peft(adapted: AdaptedModel, prompt) -> torch.Tensor:
    """Logits at the answer by PEFT's own forward."""
    ids = torch.tensor([[*prompt.ids, *WORDS[prompt.example.label][:-1]]])
    out = adapted.peft(input_ids=ids, attention_mask=torch.ones_like(ids))
    return out.logits[0, len(prompt.ids) - 1 :]


@torch.no_grad()
@pytest.mark.parametrize("tiny", ["gpt2", "gpt_neox", "llama", "opt", "qwen3", "phi3", "olmo2"], indirect=True)
def test_equals_pefts_own_forward(tiny, prompts) -> None:
    adapted = learned(tiny)
    found = adapted.answers(prompts, [WORDS[p.example.label] for p in prompts]).logits(CHOSEN)
    expected = torch.cat([by_peft(adapted, prompts[i]) for i in CHOSEN])
    torch.testing.assert_close(found, expected, atol=5e-5, rtol=1e-4)
    base = tiny.model(input_ids=torch.tensor([prompts[6].ids])).logits[0, -1]
    assert (expected[0] - base).abs().max() > 1e-2, "the prefix does something"
    assert not list(changed_elsewhere(adapted, tiny.model))


def test_losses_and_gradients_are_those_of_pefts_forward(small, prompts) -> None:
    adapted = learned(small)
    ((name, parameter),) = adapted.trainable().items()
    assert name == "prefix.embedding.weight" and adapted.count() == 5 * 3 * 2 * 2 * 8
    labels = {label: WORDS[label] for label in ABSC.labels}
    loss = AnswerLoss(adapted, prompts, labels, cache_gib=1.0)
    assert any(p is parameter for p in loss.parameters()), "several processes share its gradients"
    among = torch.tensor(sorted({token for word in labels.values() for token in word}))
    expected = torch.zeros(())
    for i in (4, 0, 5, 1):
        target = torch.searchsorted(among, torch.tensor(WORDS[prompts[i].example.label]))
        expected = expected + torch.nn.functional.cross_entropy(by_peft(adapted, prompts[i])[:, among], target)
    totals, gradients = (loss([4, 0, 5, 1]), expected), []
    torch.testing.assert_close(*totals, atol=1e-4, rtol=1e-5)
    for total in totals:
        total.backward()
        gradients.append(parameter.grad.clone())
        parameter.grad = None
    torch.testing.assert_close(*gradients, atol=1e-3 * float(gradients[1].abs().max()), rtol=0)


@torch.no_grad()
def test_untrained_it_answers_like_the_base_after_the_templates_words(small, prompts, labels) -> None:
    adapted = adapt(small.model, Prefix(tokens=4), None, seed=0)
    template = ABSC.template.replace("{sentence}", "").replace("{aspect}", "")
    words = small.tokenizer(template, add_special_tokens=False)["input_ids"][:4]
    for prompt in prompts[:3]:
        logits = small.model(input_ids=torch.tensor([[*words, *prompt.ids]])).logits[0, -1]
        expected = logits[[word[0] for word in labels.values()]].log_softmax(-1)
        found = log_probabilities(adapted, [prompt], labels, batch_tokens=300)
        np.testing.assert_allclose(found[0], expected, atol=1e-5)


@torch.no_grad()
def test_shots_stand_after_the_prefix(small, examples, tokenizer, labels) -> None:
    text = preamble_of(examples[2:3], ABSC.labels, ABSC.prompt())
    after = encode(examples, tokenizer, ABSC.prompt(PromptSettings(preamble=text)))
    adapted = learned(small)
    found = log_probabilities(adapted, after, labels, batch_tokens=300)
    for prompt, row in zip(after, found, strict=True):
        ids = torch.tensor([prompt.ids])
        logits = adapted.peft(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, -1]
        np.testing.assert_allclose(row, logits[[word[0] for word in labels.values()]].log_softmax(-1), atol=1e-4)


@torch.no_grad()
def test_perplexity_and_written_answers_are_those_after_the_prefix(small, prompts) -> None:
    adapted, base = learned(small), adapt(small.model, ZeroShot(), None, seed=0)
    text = "The box stands on the table beside the door."
    ids = torch.tensor([small.tokenizer(text)["input_ids"]])
    logits = adapted.peft(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0]
    expected = torch.nn.functional.cross_entropy(logits[:-1], ids[0, 1:]).exp()
    result = perplexity(adapted, small.tokenizer, [text], draws=2, rng=np.random.default_rng(0))
    assert result is not None
    assert result.value == pytest.approx(float(expected), rel=1e-3)
    drawn = [sampled_answers(model, prompts[:3], small.tokenizer, seed=0) for model in (adapted, base)]
    assert drawn[0] != drawn[1]


def test_rows_and_blocks_are_the_same_states(small) -> None:
    config = PrefixTuningConfig(num_virtual_tokens=3, num_layers=2, num_attention_heads=4, token_dim=20)
    rows = torch.randn(3, 2 * 2 * 20)
    keys = by_block(rows, config)
    assert [(k.shape, v.shape) for k, v in keys] == [((1, 4, 3, 5), (1, 4, 3, 5))] * 2
    assert torch.equal(in_rows(keys), rows)
    assert torch.equal(keys[1][0][0, 2, 1], rows[1, 40 + 10 : 40 + 15])


def test_a_run_exports_what_plain_peft_loads(tmp_path: Path) -> None:
    run, record, _ = execute(small_run(tmp_path, method={"prefix": Prefix()}))
    row = record.methods["prefix"]
    assert row.frozen_checked and row.fit and row.touched_share == 0
    assert row.trainable == 8 * sum(key.numel() + value.numel() for key, value in _one_token(run.lm))
    export = record.export
    assert (
        export and (export.merged, export.agreement) == (None, 1.0) and "stand before all tokens" in export.not_merged
    )
    card = (run.folder / "export/adapter/README.md").read_text()
    assert "PeftModel.from_pretrained" in card and "vllm" not in card
    plain = PeftModel.from_pretrained(copy.deepcopy(run.lm.model), run.folder / "export/adapter").eval()
    rows = [json.loads(row) for row in (run.folder / "methods/prefix/predictions.jsonl").read_text().splitlines()]
    found = absa_edit.load(run.folder).answer(run.splits.tests[0].examples)
    words = [word[0] for word in run.labels.values()]
    for row, ours, prompt in zip(rows, found, run.encode(run.splits.tests[0]), strict=False):
        assert list(row["probabilities"].values()) == pytest.approx(list(ours.values()), abs=1e-4)
        ids = torch.tensor([prompt.ids])
        with torch.no_grad():
            logits = plain(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, -1, words]
        assert logits.softmax(-1).tolist() == pytest.approx(list(ours.values()), abs=1e-4)


def _one_token(lm: LanguageModel):
    return first_keys(context(lm.model), lm.runner, 1)


def test_what_cannot_be_is_refused(small, tokenizer, examples) -> None:
    with pytest.raises(SettingsError, match=r"tokens=0: expected 1 or more"):
        Prefix(tokens=0)
    with pytest.raises(SettingsError, match=r"method prefix: BloomForCausalLM has attention of its own"):
        adapt(tiny_model("bloom", tokenizer).model, Prefix(), None, seed=0)
    adapted = learned(small)
    with pytest.raises(CannotMerge, match="the keys and values that prefix trains stand before all tokens"):
        merged(adapted)
    with pytest.raises(ModelError, match="no explanation of answers after learned keys and values"):
        explain(Classifier(small, adapted, ABSC.prompt(), ABSC), examples[0])
