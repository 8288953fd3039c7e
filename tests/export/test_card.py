"""The model card as the hub reads it."""

from __future__ import annotations

import pytest
from huggingface_hub import ModelCard

from absa_edit.export.card import model_card
from absa_edit.records import (
    SCHEMA,
    DataSummary,
    EditPlan,
    Interval,
    MethodRecord,
    ModelSummary,
    Part,
    RunRecord,
    Score,
    Site,
    Target,
)


def record(plan: EditPlan | None) -> RunRecord:
    score = Score(
        Interval(0.715, 0.68, 0.749, 300), Interval(0.65432, 0.6, 0.7, 300), {"positive": 0.7}, ((1, 0, 0),) * 3
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


@pytest.mark.parametrize("plan", [PLAN, None])
@pytest.mark.parametrize("representation", [False, True])
def test_metadata_and_text(plan, representation) -> None:
    text = model_card(record(plan), "edit", base="hub/base", representation=representation)
    card = ModelCard(text)
    assert card.data.base_model == "hub/base"
    assert card.data.datasets == ["laptop-sample"]
    assert card.data.language == "en"
    (accuracy, f1) = card.data.eval_results
    assert (accuracy.dataset_name, accuracy.metric_type, accuracy.metric_value) == ("laptop-sample", "accuracy", 0.715)
    assert (f1.metric_type, f1.metric_value) == ("f1", 0.6543)
    assert "71.5 [68.0, 74.9]" in card.text and "| 300 |" in card.text
    assert "1,234 parameters" in card.text and "seed 3" in card.text
    assert ("attn@4, mlp@5" in card.text) == (plan is not None)
    assert ("representation.safetensors" in card.text) == representation
    assert "45.6" in card.text and "1200 aspects" in card.text
    assert "\n---\n" in text and text.startswith("---\n")
