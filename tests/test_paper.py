"""The set-up of arXiv 2503.15117: the four experiments say what it says, train what it trains, and run on any model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from contexts import context
from runs import execute
from safetensors.torch import load_file
from test_train import settings
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

import absa_edit
from absa_edit.context import Context
from absa_edit.data.prompts import encode, label_ids
from absa_edit.data.settings import Leaks
from absa_edit.data.sources import load_splits
from absa_edit.localizers.base import locate
from absa_edit.methods.base import adapt
from absa_edit.methods.low_rank_edit import Edit
from absa_edit.methods.peft_adapter import PeftAdapter
from absa_edit.model.known import PACKAGED
from absa_edit.model.sources import reviewlm
from absa_edit.pipeline.stages.methods import own_plan
from absa_edit.records import EditPlan, Example, Part, Role, Site
from absa_edit.results import RunRecord
from absa_edit.settings import Settings, Stage
from absa_edit.storage import load_predictions
from absa_edit.tasks.absc import ABSC

DOMAINS = ("device", "laptop", "rest", "service")
LLAMA_2_7B = {
    "vocab_size": 32_000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
    "num_attention_heads": 32, "max_position_embeddings": 4096,
}  # fmt: skip
TRAINED = {
    "zero_shot": (0, "0.000"),
    "paper_edit": (393_240, "0.006"),
    "paper_edit_one_rate": (393_240, "0.006"),
    "paper_lora": (56_098_816, "0.826"),
    "paper_dora": (56_975_360, "0.838"),
    "paper_loreft": (393_264, "0.006"),
    "paper_loreft_all": (2_031_864, "0.030"),  # the paper's 0.031 counts the last layer
}
"""Parameters, and their share of all weights, the adapter's own among them, in percent as the paper prints it."""


@pytest.mark.parametrize("domain", DOMAINS)
def test_the_experiments_are_as_the_paper_and_its_code_say(domain: str) -> None:
    composed = settings(f"+experiment=paper/{domain}")
    assert (composed.name, composed.data.name) == (f"paper-me_absc_{domain}", f"me_absc_{domain}")
    assert {*composed.data.tests, composed.data.name} == {f"me_absc_{d}" for d in DOMAINS}
    assert composed.data.leaks is Leaks.keep and Stage.trace not in composed.stages
    assert (composed.model.name, composed.seed) == ("meta-llama/Llama-2-7b-hf", 0)
    assert composed.prompt.template == ABSC.template and composed.prompt.separator == ""
    fit = composed.fit
    assert (fit.epochs, fit.batch_size, fit.warmup, fit.weight_decay, fit.end) == (1, 2, 0, 0, True)
    assert (composed.locate.parts, composed.locate.rank) == ([Part.attn], 4)
    two, one = composed.method["paper_edit"], composed.method["paper_edit_one_rate"]
    assert isinstance(two, Edit) and two.weights and two.representation and two.rslora
    assert (two.lr, two.representation_lr) == (3e-4, 1e-5)
    assert (two.alpha, two.dropout, two.representation_rank, two.position) == (8, 0.05, 4, Role.aspect_again)
    assert one == replace(two, lr=2e-5, representation_lr=2e-5)
    dora = composed.method["paper_dora"]
    assert isinstance(dora, PeftAdapter) and dora.options["use_dora"] and dora.options["r"] == 32
    assert not composed.score.sampled and settings(f"+experiment=paper/{domain}", "score.sampled=true").score.sampled


def shape(composed: Settings, layers: int = 32) -> tuple[Context, EditPlan]:
    """What the settings' methods are given of a Llama-2-7b that has shapes and no values, and where they edit it."""
    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(**LLAMA_2_7B | {"num_hidden_layers": layers}))
    model = model.to(torch.bfloat16).requires_grad_(False)
    ctx = context(model, locate=composed.locate, method=composed.method)
    return ctx, locate(ctx, composed.locate, ctx.rng("locate"))


def test_as_many_parameters_train_as_in_the_paper() -> None:
    composed = settings("+experiment=paper/laptop")
    ctx, plan = shape(composed)
    base = ctx.lm.model.num_parameters()
    assert base == 6_738_415_616
    assert [t.site for t in plan.targets] == [Site(layer, Part.attn) for layer in range(10, 16)]
    found = {name: adapt(ctx, m, own_plan(ctx, name, m, plan)).count() for name, m in composed.method.items()}
    assert {name: (n, f"{100 * n / (base + n):.3f}") for name, n in found.items()} == TRAINED
    assert f"{100 * found['paper_edit'] / base:.3f}" == "0.006"


@pytest.mark.parametrize(("layers", "edited"), [(12, (4, 5)), (18, (6, 7, 8)), (30, tuple(range(9, 15)))])
def test_the_window_is_scaled_to_the_depth(layers: int, edited: Sequence[int]) -> None:
    assert shape(settings("+experiment=paper/laptop"), layers)[1].layers() == edited


def tokenizers() -> list[Path]:
    fetched = [model.folder for model in PACKAGED.values() if (model.folder / "tokenizer.json").is_file()]
    return [reviewlm(), *fetched]


@pytest.mark.parametrize("folder", tokenizers(), ids=lambda folder: folder.name)
def test_the_edit_acts_where_the_codes_index_points(folder: Path, examples: tuple[Example, ...]) -> None:
    """`prompt_len - 2`, and the answer after the last token, as in the official code."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    odd = [("o.s", "the o.s . crashes"), ('15" )', 'a screen ( 15" ) is big'), ("100 %", "it ran at 100 %")]
    more = [Example(a, a, text, a, text.index(a), text.index(a) + len(a), "neutral", "") for a, text in odd]
    _check_position([*examples, *more], tokenizer)


@pytest.mark.slow
def test_it_does_so_in_every_prompt_of_the_papers_data(public_data: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    for domain in DOMAINS:
        splits = _splits(domain, public_data)
        _check_position([*splits.train.examples, *splits.tests[0].examples], tokenizer)


def _check_position(examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase) -> None:
    prompt = ABSC.prompt(settings("+experiment=paper/laptop").prompt)
    for encoded in encode(examples, tokenizer, prompt):
        assert encoded.positions(Role.aspect_again)[-1] == len(encoded.ids) - 2
        assert tokenizer.decode(encoded.ids[-1:]).strip() == "?"
    assert set(label_ids(tokenizer, prompt, ABSC.labels)) == set(ABSC.labels)


def _splits(domain: str, folder: Path):
    chosen = replace(settings(f"+experiment=paper/{domain}").data, path=str(folder), strict=True)
    return load_splits(chosen, root=folder, environ=os.environ | {"ABSA_EDIT_DATA": str(folder)})


def test_leaked_rows_of_the_papers_data_are_kept_and_known(public_data: Path) -> None:
    rest = _splits("rest", public_data)
    assert [len(data.leaked) for data in rest.tests] == [532, 0, 0, 0]
    assert (len(rest.train) + len(rest.dev), len(rest.dev.counts())) == (4287, 3)
    assert len({e.text for e in rest.dev.examples}) == 1, "one sentence is held out"
    assert [len(data) for data in rest.tests] == [2252, 691, 631, 886]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Context, RunRecord, str]:
    """The experiment on a few examples of the bundled sample."""
    small = (
        "data=sample",
        "data.limit_train=12",
        "data.limit_test=4",
        "data.tests=[]",
        "score.resamples=50",
        "score.retention=false",
        "score.neutral_words=100",
    )
    output = tmp_path_factory.mktemp("outputs")
    methods = "method=[zero_shot,paper/edit,paper/edit_one_rate,paper/loreft]"
    chosen = ("model=reviewlm", "model.device=cpu", "track=none", "score.sampled=true", f"output={output}")
    return execute(settings("+experiment=paper/laptop", *small, methods, *chosen))


def test_it_runs_on_a_small_model(finished: tuple[Context, RunRecord, str]) -> None:
    run, record, _ = finished
    assert list(record.methods) == ["zero_shot", "paper_edit", "paper_edit_one_rate", "paper_loreft"]
    assert record.plan is not None and record.plan.layers() == (4, 5)
    for name, method in record.methods.items():
        assert method.fit is None or method.fit.steps == 6, name
        (drawn,) = method.sampled.values()
        assert drawn.accuracy.n == 4 and 0 <= drawn.no_label <= 4
    said = (run.folder / "report.md").read_text()
    assert "answers that are drawn" in said and "## Trace" not in said


def test_its_export_answers_alike(finished: tuple[Context, RunRecord, str]) -> None:
    run, record, _ = finished
    assert record.export and (record.export.method, record.export.agreement) == ("paper_edit", 1.0)
    rows = load_predictions(run.folder / "methods" / "paper_edit" / "predictions.jsonl")
    loaded = absa_edit.load(run.folder, device="cpu")
    config = loaded.adapted.peft.peft_config["default"]  # type: ignore[union-attr]
    assert (config.use_rslora, config.r, config.lora_alpha) == (True, 4, 8)
    trained = load_file(run.folder / "methods" / "paper_edit" / "weights.safetensors")
    assert all(w.any() for name, w in trained.items() if "lora_B" in name)
    for row, again in zip(rows, loaded.predict([r.text for r in rows], [r.aspect for r in rows]), strict=True):
        assert again == pytest.approx(row.probabilities, abs=1e-4)
