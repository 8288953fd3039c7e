"""The model card as the hub reads it."""

from __future__ import annotations

import ast
from dataclasses import replace

import pytest
from huggingface_hub import ModelCard

from absa_edit.export.folder import Description, Representation
from absa_edit.export.model_card import adapter_card, add_figures, merged_card, plain_card
from absa_edit.records import DataSummary, EditPlan, Part, Role, Site, Target
from absa_edit.results import SCHEMA, Interval, MethodRecord, ModelSummary, RunRecord, Score
from absa_edit.tasks.absc import ABSC
from absa_edit.tasks.base import Task


def record(plan: EditPlan | None) -> RunRecord:
    score = Score(
        Interval(0.715, 0.68, 0.749, 300),
        Interval(0.65432, 0.6, 0.7, 300),
        {"positive": 0.7},
        ((1, 0, 0),) * 3,
        Interval(0.61234, 0.55, 0.68, 300),
    )
    method = MethodRecord(
        kind="edit",
        trainable=1234,
        share=0.0005,
        touched_share=0.02,
        lr=1e-3,
        fit=None,
        score_seconds=0.1,
        perplexity=45.6,
        bytes_on_disk=5000,
        frozen_checked=True,
        plan=plan,
        scores={"laptop-sample": score},
    )
    data = DataSummary("laptop-sample", "train", "xml", {"a.xml": "0"}, 1200, {"positive": 400}, {})
    model = ModelSummary("reviewlm", "reviewlm", "0", 10, 12, "float32")
    return RunRecord(
        SCHEMA, "my: experiment", 3, {"train": data}, model, None, plan, {"edit": method}, (), None, {}, {}, None, "0"
    )


PLAN = EditPlan("trace", (Target(Site(4, Part.attn), 4), Target(Site(5, Part.mlp), 4)), 99)


EDITED = Representation((4, 5), 4, Role.aspect_again)


def about(base: str = "hub/base", representation: Representation | None = None) -> Description:
    return Description("edit", base, "0" * 64, None, "bfloat16", ABSC.prompt(), representation)


@pytest.mark.parametrize("plan", [PLAN, None])
@pytest.mark.parametrize("representation", [None, EDITED])
def test_metadata_and_text(plan, representation) -> None:
    text = adapter_card(record(plan), "edit", about(representation=representation), rank=4)
    card = ModelCard(text)
    assert (card.data.base_model, card.data.base_model_relation) == ("hub/base", "adapter")
    assert card.data.library_name == "peft" and card.data.metrics == ["accuracy", "f1"]
    assert card.data.datasets == ["laptop-sample"]
    assert card.data.language == "en"
    (accuracy, f1, loss) = card.data.eval_results
    assert (accuracy.dataset_name, accuracy.metric_type, accuracy.metric_value) == ("laptop-sample", "accuracy", 0.715)
    assert (f1.metric_type, f1.metric_name, f1.metric_value) == ("f1", "macro-F1", 0.6543)
    assert (loss.metric_type, loss.metric_value) == ("log_loss", 0.6123)
    assert "| 0.612 [0.550, 0.680] |" in card.text
    assert "71.5 [68.0, 74.9]" in card.text and "| 300 |" in card.text
    assert "1,234 parameters" in card.text and "seed 3" in card.text
    assert ("attn@4, mlp@5" in card.text) == (plan is not None)
    assert ("representation.safetensors" in card.text) == (representation is not None)
    assert ("vllm serve hub/base" in card.text) == (representation is None), "vLLM cannot apply a representation edit"
    assert 'from_pretrained("hub/base", dtype="bfloat16")' in card.text
    assert "45.6" in card.text and "1200 aspects" in card.text
    assert "\n---\n" in text and text.startswith("---\n")


def test_a_merged_checkpoint_is_a_transformers_model() -> None:
    card = ModelCard(merged_card(record(PLAN), "edit", about()))
    assert (card.data.library_name, card.data.base_model_relation) == ("transformers", "finetune")
    assert "convert_hf_to_gguf.py" in card.text and "--dtype bfloat16" in card.text
    assert "PeftModel" not in card.text


def test_a_folder_of_this_machine_is_not_named() -> None:
    text = adapter_card(record(PLAN), "edit", about(base="/home/me/models/mine"), rank=4)
    assert ModelCard(text).data.base_model is None and "/home/me" not in text


def test_a_base_that_the_package_knows_is_found_through_it() -> None:
    for name in ("reviewlm", "gemma3_270m_q4"):
        card = adapter_card(record(PLAN), "edit", about(base=name), rank=4)
        assert f'from_pretrained(absa_edit.model_folder("{name}")' in card
    assert "base_model: google/gemma-3-270m\n" in card


def test_a_card_says_that_weights_were_dequantised() -> None:
    plain = record(PLAN)
    run = replace(plain, model=replace(plain.model, weights="dequantised from Q4_1"))
    assert "` (dequantised from Q4_1) adapted with absa_edit" in adapter_card(run, "edit", about(), rank=4)


def test_figures_stand_beside_the_card(tmp_path) -> None:
    export, figures = tmp_path / "export", tmp_path / "figures"
    for folder in (export, figures):
        folder.mkdir()
    (export / "README.md").write_text(adapter_card(record(PLAN), "edit", about(), rank=48))
    for name in ("trace.png", "learning.png"):
        (figures / name).write_bytes(b"png")
    add_figures(export, [figures / "trace.png", figures / "learning.png"])
    text = (export / "README.md").read_text()
    assert "](figures/trace.png)" in text and "learning" not in text
    assert [p.name for p in (export / "figures").iterdir()] == ["trace.png"]
    assert ModelCard(text).data.base_model == "hub/base"


@pytest.mark.parametrize("labels", [("yes", "no"), ("joy", "fear", "anger", "shame", "guilt")])
def test_a_task_about_sentences_knows_no_aspects(labels) -> None:
    task = Task(labels, "What is told by '{sentence}' ?", asks_aspect=False)
    described = replace(about(), prompt=task.prompt(), labels=labels)
    ours = replace(record(PLAN), labels=labels)
    for text in (adapter_card(ours, "edit", described, rank=4), merged_card(ours, "edit", described)):
        card = ModelCard(text)
        assert "aspect" not in text and "1200 sentences" in card.text
        assert f"classify sentences as {', '.join(labels[:-1])} or {labels[-1]}" in card.text
        assert f"The labels are {', '.join(labels[:-1])} and {labels[-1]}" in card.text
        code = card.text.split("```python\n")[1].split("```")[0]
        assert ast.parse(code) and '.predict(["What a lovely day."])' in code
        assert card.data.tags == ["sentence-classification", "absa_edit"]
    assert "aspect" not in plain_card(described, "base", rank=4)


def test_the_labels_of_aspects_are_named() -> None:
    card = adapter_card(record(PLAN), "edit", about(), rank=4)
    assert "of an aspect as positive, negative or neutral" in card and "are positive, negative and neutral," in card
    assert '["The screen is lovely but the fan never stops."], ["fan"]' in card
