"""The proof of an export, and what it finds when a weight is not the one that was trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from absa_edit.errors import ExportMismatch
from absa_edit.evaluation.predict import log_probabilities, predictions
from absa_edit.export.folder import describe, write_adapter, write_merged
from absa_edit.export.parity import check, plain_adapter, plain_merged
from absa_edit.methods.adapted_model import AdaptedModel
from absa_edit.model.settings import ModelSettings
from absa_edit.results import Prediction
from absa_edit.tasks.absc import ABSC, POLARITIES

KINDS = {"adapter": plain_adapter, "merged": plain_merged}


@pytest.fixture
def again(prompts, labels):
    def predict(adapted: AdaptedModel) -> list[Prediction]:
        return list(
            predictions(
                "edit", "t", prompts, list(labels), log_probabilities(adapted, prompts, labels, batch_tokens=400)
            )
        )

    return predict


def written(kind: str, adapted: AdaptedModel, lm, folder: Path) -> Path:
    about = describe(adapted, ModelSettings(name="b"), lm.sha256, ABSC.prompt(), ABSC)
    if kind == "adapter":
        write_adapter(adapted, folder, about, "")
        return folder / "adapter_model.safetensors"
    write_merged(adapted, lm.tokenizer, folder, about, "")
    return folder / "model.safetensors"


@pytest.mark.parametrize("tiny", ["gpt2", "llama", "opt"], indirect=True)
@pytest.mark.parametrize("kind", KINDS)
def test_an_export_answers_the_same(tiny, trained, tmp_path, again, kind) -> None:
    adapted = trained(tiny)
    written(kind, adapted, tiny, tmp_path / "e")
    gap, agreement = check(kind, KINDS[kind](tmp_path / "e", tiny.model), again(adapted), again)
    assert 0 <= gap < 1e-3 and agreement == 1.0


@pytest.mark.parametrize("kind", KINDS)
def test_a_weight_that_was_tampered_with_is_found(small, trained, tmp_path, again, kind) -> None:
    adapted = trained(small)
    file = written(kind, adapted, small, tmp_path / "e")
    tensors = load_file(file)
    name = next(n for n in sorted(tensors) if "layers.2.self_attn.o_proj" in n)
    tensors[name] = -3 * tensors[name]
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(ExportMismatch, match=rf"{kind}: \d of 8 test predictions differ.*t example \d, \w+ became \w+"):
        check(kind, KINDS[kind](tmp_path / "e", small.model), again(adapted), again)


def shifted(first: list[Prediction], factor: float) -> list[Prediction]:
    """The predictions with the least likely label of one of them made `factor` as likely."""
    row = first[3]
    other = dict(row.probabilities)
    other[min(other, key=other.__getitem__)] *= factor
    return [*first[:3], replace(row, probabilities=other), *first[4:]]


def test_the_gap_is_the_largest_of_a_log_probability(small, trained, again) -> None:
    adapted = trained(small)
    first = again(adapted)
    gap, _ = check("x", adapted, first, lambda _: shifted(first, 0.9999))
    assert gap == pytest.approx(-np.log(0.9999))


@pytest.mark.parametrize("factor", [0.9, float("nan")])
def test_a_gap_that_rounding_does_not_explain_is_an_error(small, trained, again, factor) -> None:
    adapted = trained(small)
    first = again(adapted)
    with pytest.raises(ExportMismatch, match=r"x: log-probabilities differ by up to .*allowed 1e-03"):
        check("x", adapted, first, lambda _: shifted(first, factor))


def flipped(first: list[Prediction], wanted: int) -> list[Prediction]:
    """The predictions with the answers of some of them exchanged for others, at the same probabilities."""
    others = {p: q for p, q in zip(POLARITIES, POLARITIES[1:] + POLARITIES[:1], strict=True)}
    return [replace(row, predicted=others[row.predicted]) if i < wanted else row for i, row in enumerate(first)]


@pytest.mark.parametrize(
    ("dtype", "merged", "turned", "passes"),
    [
        ("bfloat16", True, 2, True),
        ("bfloat16", True, 3, False),
        ("bfloat16", False, 1, False),
        ("float32", True, 1, False),
    ],
)
def test_rounding_may_turn_near_ties_where_half_weights_were_merged(
    small, trained, again, dtype, merged, turned, passes
) -> None:
    adapted = trained(small)
    first = 25 * again(adapted)  # two of 200 are one in a hundred
    adapted.model.to(getattr(torch, dtype))
    if passes:
        _, agreement = check("x", adapted, first, lambda _: flipped(first, turned), merged=merged)
        assert agreement == 0.99
        return
    with pytest.raises(ExportMismatch, match=rf"x: {turned} of 200"):
        check("x", adapted, first, lambda _: flipped(first, turned), merged=merged)


def test_an_export_whose_answers_are_no_numbers_is_a_mismatch(small, trained, again) -> None:
    adapted = trained(small)
    first = again(adapted)
    with torch.no_grad():
        adapted.model.get_output_embeddings().weight.fill_(torch.nan)
    with pytest.raises(ExportMismatch, match=r"x: .*are not numbers"):
        check("x", adapted, first, again)


def test_loading_leaves_the_base_alone(small, trained, tmp_path) -> None:
    names = set(small.model.state_dict())
    written("adapter", trained(small), small, tmp_path / "e")
    plain_adapter(tmp_path / "e", small.model)
    assert set(small.model.state_dict()) == names
