"""Exports asked about sentences."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file

import absa_edit
from absa_edit.data.prompts import encode, label_ids
from absa_edit.data.settings import PromptSettings
from absa_edit.errors import DataError, ModelError, RecordError, SettingsError
from absa_edit.evaluation.predict import log_probabilities
from absa_edit.export.folder import write_adapter, write_merged
from absa_edit.inference.classifier import Classifier, load
from absa_edit.methods.delta import Delta
from absa_edit.methods.full import Full
from absa_edit.methods.low_rank_edit import Edit
from absa_edit.model.loading import load_model
from absa_edit.model.settings import ModelSettings
from absa_edit.records import Role
from absa_edit.tasks.absc import ABSC

SENTENCES = ["The screen is lovely but the fan never stops.", "Great price!", "It has a fan. The fan is loud"]
ASPECTS = ["fan", "price", "fan"]


@pytest.fixture
def classifier(small, trained, about, tmp_path) -> Classifier:
    adapted = trained(small)
    write_adapter(adapted, tmp_path / "a", about(adapted), "")
    return load(tmp_path / "a", device="cpu")


def in_memory(adapted, lm, prompts, settings: PromptSettings) -> np.ndarray:
    return np.exp(
        log_probabilities(adapted, prompts, label_ids(lm.tokenizer, settings, ABSC.labels), batch_tokens=4096)
    )


def asked(classifier: Classifier, examples) -> np.ndarray:
    rows = classifier.predict([e.text for e in examples], [e.aspect for e in examples])
    return np.array([list(row.values()) for row in rows])


@pytest.mark.parametrize("position", [Role.aspect_again, Role.aspect])
@pytest.mark.parametrize(("weights", "representation"), [(True, False), (True, True), (False, True)])
def test_adapter_answers_like_the_model_in_memory(
    small, trained, about, tmp_path, examples, weights, representation, position
) -> None:
    settings = ABSC.prompt(PromptSettings(labels=["good", "bad", "okay"]))
    method = Edit(lr=1e-3, weights=weights, representation=representation, position=position)
    adapted = trained(small, method)
    write_adapter(adapted, tmp_path / "a", about(adapted, prompt=settings), "")
    expected = in_memory(adapted, small, encode(examples, small.tokenizer, settings), settings)
    np.testing.assert_allclose(asked(absa_edit.load(tmp_path / "a", device="cpu"), examples), expected, atol=1e-5)
    assert expected.std(0).min() > 1e-3


def test_representation_edit_counts(small, trained, about, tmp_path, examples) -> None:
    adapted = trained(small, Edit(lr=1e-3, representation=True))
    write_adapter(adapted, tmp_path / "a", about(adapted), "")
    with_it = asked(load(tmp_path / "a", device="cpu"), examples)
    change(tmp_path / "a", representation=None)
    assert np.abs(asked(load(tmp_path / "a", device="cpu"), examples) - with_it).max() > 1e-2


@pytest.mark.parametrize("method", [Edit(lr=1e-3), Delta(lr=1e-3)], ids=["edit", "delta"])
def test_merged_answers_like_the_model_in_memory(small, trained, about, tmp_path, examples, prompts, method) -> None:
    adapted = trained(small, method)
    folder = tmp_path / "run" / "export" / "merged"
    write_merged(adapted, small.tokenizer, folder, about(adapted, base="elsewhere"), "")
    expected = in_memory(adapted, small, prompts, ABSC.prompt())
    for where in (folder, tmp_path / "run", str(tmp_path / "run")):
        np.testing.assert_allclose(asked(load(where, device="cpu"), examples), expected, atol=1e-5)


@pytest.mark.parametrize(
    "method", [Edit(lr=1e-3), Edit(lr=1e-3, weights=False, representation=True), Full(lr=1e-3)],
    ids=["edit", "representation", "full"],
)  # fmt: skip
def test_saved_from_python_it_answers_the_same(small, base_folder, trained, tmp_path, examples, method) -> None:
    settings = ABSC.prompt(PromptSettings(labels=["good", "bad", "okay"]))
    lm = load_model(ModelSettings(name=str(base_folder), device="cpu"))
    made = Classifier(lm, trained(lm, method), settings, ABSC)
    made.save(tmp_path / "mine")
    again = absa_edit.load(tmp_path / "mine", device="cpu")
    np.testing.assert_allclose(asked(again, examples), asked(made, examples), atol=1e-5)
    assert again.prompt == settings
    about = json.loads((tmp_path / "mine" / "absa_edit.json").read_text())
    assert (about["base"], about["revision"]) == (str(base_folder), None)
    again.save(str(tmp_path / "again"))
    np.testing.assert_allclose(
        asked(load(tmp_path / "again", device="cpu"), examples), asked(made, examples), atol=1e-5
    )
    card = ModelCard.load(tmp_path / "mine" / "README.md")
    assert "without scores" in card.text and str(base_folder) not in card.content
    library = "transformers" if isinstance(method, Full) else "peft" if method.weights else "absa_edit"
    assert card.data.library_name == library


def test_saving_removes_no_files_but_an_earlier_export(classifier, tmp_path) -> None:
    (tmp_path / "mine").mkdir()
    classifier.save(tmp_path / "mine")
    classifier.save(tmp_path / "mine")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "notes.txt").write_text("mine")
    for place in (tmp_path / "notes", tmp_path / "notes" / "notes.txt"):
        with pytest.raises(RecordError, match="there are other files"):
            classifier.save(place)
    assert (tmp_path / "notes" / "notes.txt").read_text() == "mine"


def test_a_hub_model_is_saved_with_its_commit(small) -> None:
    assert replace(small, source="org/model", sha256="c0ffee").settings().revision == "c0ffee"
    assert replace(small, source="reviewlm").settings().revision is None


def change(folder: Path, **fields: object) -> None:
    """Write other values into an export's `absa_edit.json`."""
    file = folder / "absa_edit.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


@pytest.mark.parametrize("whole", [False, True], ids=["adapter", "merged"])
def test_a_fitted_temperature_is_used_where_it_is_asked_for(small, trained, about, tmp_path, examples, whole) -> None:
    adapted = trained(small)
    if whole:
        write_merged(adapted, small.tokenizer, tmp_path / "a", about(adapted), "")
    else:
        write_adapter(adapted, tmp_path / "a", about(adapted), "")
    texts, aspects = [e.text for e in examples], [e.aspect for e in examples]
    with pytest.raises(SettingsError, match="fitted_temperature: this export has none; train it again with score"):
        load(tmp_path / "a", device="cpu").predict(texts, aspects, fitted_temperature=True)
    plain = asked(load(tmp_path / "a", device="cpu"), examples)
    change(tmp_path / "a", temperature=2.0)
    loaded = load(tmp_path / "a", device="cpu")
    np.testing.assert_allclose(asked(loaded, examples), plain)
    rows = loaded.predict(texts, aspects, fitted_temperature=True)
    roots = np.sqrt(plain)
    expected = roots / roots.sum(1, keepdims=True)
    np.testing.assert_allclose([list(row.values()) for row in rows], expected, rtol=1e-6)
    assert np.abs(expected - plain).max() > 0.01
    loaded.save(tmp_path / "again")
    assert load(tmp_path / "again", device="cpu").temperature == 2.0
    assert "log-probabilities are divided by 2.00" in (tmp_path / "again" / "README.md").read_text()


def test_another_place_of_the_base_can_be_given(small, trained, about, base_folder, tmp_path, examples) -> None:
    adapted = trained(small)
    write_adapter(adapted, tmp_path / "a", about(adapted, base="/gone/away"), "")
    with pytest.raises(ModelError, match=r"the base model of this adapter is not at /gone/away; say where.*base="):
        load(tmp_path / "a", device="cpu")
    assert asked(load(tmp_path / "a", device="cpu", base=str(base_folder)), examples[:1]).shape == (1, 3)


def test_a_base_with_other_weights_is_an_error(small, trained, about, base_folder, tmp_path) -> None:
    adapted = trained(small)
    write_adapter(adapted, tmp_path / "a", about(adapted), "")
    other = tmp_path / "other"
    shutil.copytree(base_folder, other)
    tensors = load_file(other / "model.safetensors")
    tensors["model.norm.weight"] += 0.01
    save_file(tensors, other / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(RecordError, match=r"was trained on the weights [0-9a-f]{12}.*it would answer wrongly"):
        load(tmp_path / "a", device="cpu", base=str(other))


def test_a_base_that_cannot_be_compared_is_named(small, trained, about, tmp_path, caplog) -> None:
    """The hub names a commit, a folder has a hash of its files."""
    adapted = trained(small)
    write_adapter(adapted, tmp_path / "a", about(adapted), "")
    change(tmp_path / "a", base_sha256="c" * 40)
    load(tmp_path / "a", device="cpu")
    assert "cannot be compared" in caplog.text


@pytest.mark.parametrize(
    ("method", "gone"),
    [
        (Edit(lr=1e-3), "adapter_config.json"),
        (Edit(lr=1e-3), "adapter_model.safetensors"),
        (Edit(lr=1e-3, representation=True), "adapter_config.json"),
        (Edit(lr=1e-3, representation=True), "representation.safetensors"),
    ],
)
def test_half_a_copy_is_an_error_and_not_the_base_model(small, trained, about, tmp_path, method, gone) -> None:
    adapted = trained(small, method)
    write_adapter(adapted, tmp_path / "a", about(adapted), "")
    (tmp_path / "a" / gone).unlink()
    with pytest.raises(RecordError, match=rf"no {gone} in it; copy the whole folder"):
        load(tmp_path / "a", device="cpu")


def test_an_export_without_any_weights_is_an_error(small, trained, about, tmp_path) -> None:
    adapted = trained(small, Delta(lr=1e-3))
    write_merged(adapted, small.tokenizer, tmp_path / "m", about(adapted), "")
    (tmp_path / "m" / "config.json").unlink()
    with pytest.raises(RecordError, match=r"no config\.json, adapter_config\.json or representation"):
        load(tmp_path / "m", device="cpu")


@pytest.mark.parametrize("file", ["adapter_model.safetensors", "representation.safetensors"])
def test_weights_that_were_cut_short_are_an_error(small, trained, about, tmp_path, file) -> None:
    adapted = trained(small, Edit(lr=1e-3, representation=True))
    write_adapter(adapted, tmp_path / "a", about(adapted), "")
    path = tmp_path / "a" / file
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(RecordError, match=r"its weights cannot be read"):
        load(tmp_path / "a", device="cpu")


def test_a_checkpoint_that_was_cut_short_is_an_error(small, trained, about, tmp_path) -> None:
    adapted = trained(small, Delta(lr=1e-3))
    write_merged(adapted, small.tokenizer, tmp_path / "m", about(adapted), "")
    path = tmp_path / "m" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ModelError, match=r"model\.name=.*/m: "):
        load(tmp_path / "m", device="cpu")


def test_a_device_that_is_not_there_is_not_the_base_models_fault(classifier, tmp_path) -> None:
    with pytest.raises(ModelError, match=r"^model\.device=banana"):
        load(tmp_path / "a", device="banana")


def test_an_export_that_does_not_say_what_it_is_is_an_error(small, trained, about, tmp_path) -> None:
    adapted = trained(small)
    write_adapter(adapted, tmp_path / "a", about(adapted), "")
    change(tmp_path / "a", base_sha256=None)
    with pytest.raises(RecordError, match=r"absa_edit\.json is not a Description: base_sha256"):
        load(tmp_path / "a", device="cpu")


def test_rows_sum_to_one_in_the_order_given(classifier) -> None:
    rows = classifier.predict(SENTENCES, ASPECTS, batch_tokens=40)
    assert [list(row) for row in rows] == [["positive", "negative", "neutral"]] * 3
    assert [sum(row.values()) for row in rows] == pytest.approx([1.0] * 3)
    turned = classifier.predict(SENTENCES[::-1], ASPECTS[::-1])[::-1]
    for a, b in zip(rows, turned, strict=True):
        assert list(a.values()) == pytest.approx(list(b.values()), abs=1e-5)
    assert len({round(row["positive"], 4) for row in rows}) == 3
    assert classifier.predict([], []) == []


def test_what_is_not_a_pair_each_is_an_error(classifier) -> None:
    with pytest.raises(DataError, match="3 sentences and 2 aspects"):
        classifier.predict(SENTENCES, ASPECTS[:2])
    for sentences, aspects in ((SENTENCES[0], ["fan"]), (SENTENCES[:1], "f"), ("fan", "fan")):
        with pytest.raises(DataError, match="expected two lists"):
            classifier.predict(sentences, aspects)


@pytest.mark.parametrize("tokens", [0, -5])
def test_batches_hold_something(classifier, tokens) -> None:
    with pytest.raises(SettingsError, match=f"batch_tokens={tokens}: expected at least 1"):
        classifier.predict(SENTENCES, ASPECTS, batch_tokens=tokens)


def test_a_whole_model_has_no_other_base(small, trained, about, tmp_path) -> None:
    adapted = trained(small, Full(lr=1e-3))
    write_merged(adapted, small.tokenizer, tmp_path / "m", about(adapted), "")
    with pytest.raises(SettingsError, match=r"base=elsewhere: .* a whole model"):
        load(tmp_path / "m", device="cpu", base="elsewhere")


@pytest.mark.filterwarnings("error:`is_gradient_checkpointing`")
def test_loading_warns_of_nothing_that_a_user_could_change(small, trained, about, tmp_path) -> None:
    adapted = trained(small)
    write_adapter(adapted, tmp_path / "a", about(adapted), "")
    load(tmp_path / "a", device="cpu")


@pytest.mark.parametrize("aspect", ["keyboard", "", "  ", "screens"])
def test_an_aspect_that_is_not_in_the_sentence_is_an_error(classifier, aspect) -> None:
    with pytest.raises(DataError, match=r"does not stand in the sentence"):
        classifier.predict(SENTENCES[:1], [aspect])


@pytest.mark.parametrize(
    ("sentence", "aspect", "found"),
    [
        ("A fantastic fan", "fan", (12, 15)),  # the word, not a part of one before it
        ("The FAN is loud", "fan", (4, 7)),
        ("Die Straße ist laut, der AKKU gut", "akku", (25, 29)),  # folding case moves no offsets
        ("the fan here, the fan there", "fan", (4, 7)),
    ],
)
def test_where_the_aspect_is_taken(classifier, monkeypatch, sentence, aspect, found) -> None:
    seen = []

    def spy(examples, *rest):
        seen.extend(examples)
        return encode(examples, *rest)

    monkeypatch.setattr("absa_edit.inference.classifier.encode", spy)
    classifier.predict([sentence], [aspect])
    (example,) = seen
    assert (example.start, example.end) == found
    assert example.aspect == sentence[slice(*found)]


def test_a_folder_without_an_export_is_an_error(tmp_path) -> None:
    with pytest.raises(RecordError, match="no export in it"):
        load(tmp_path)


def test_nothing_in_a_loaded_model_trains(classifier) -> None:
    assert not any(p.requires_grad for p in classifier.lm.model.parameters())
    assert not any(m.training for m in classifier.lm.model.modules())
