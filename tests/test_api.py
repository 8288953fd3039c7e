"""The stages from Python, and the lines that the README promises."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

import absa_edit
from absa_edit.compose import register, settings_from
from absa_edit.data.sources import Splits
from absa_edit.errors import DataError, SettingsError
from absa_edit.methods.full import Full
from absa_edit.methods.low_rank_edit import Edit
from absa_edit.model.loading import LanguageModel
from absa_edit.records import Dataset, EditPlan, Trace
from absa_edit.tasks.absc import ABSC, POLARITIES
from absa_edit.training.settings import FitSettings

ROOT = Path(__file__).resolve().parents[1]
SMALLER = {
    "limit_train=300": "limit_train=40",
    "examples=30": "examples=2, samples=1, filter=False, parts=['attn', 'mlp']",
}


@pytest.mark.slow
def test_the_lines_in_the_readme_run(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"### From Python\n\n```python\n(.*?)```", text, re.DOTALL)
    for many, few in SMALLER.items():
        assert many in code
        code = code.replace(many, few)
    done: dict[str, Any] = {}
    exec(compile(code.replace("classifier.predict(", "answers = classifier.predict("), "README.md", "exec"), done)
    assert isinstance(done["trace"], Trace) and isinstance(done["plan"], EditPlan)
    assert done["classifier"].adapted.plan == done["plan"]
    assert list(done["answers"][0]) == ["positive", "negative", "neutral"]


def test_importing_takes_no_torch() -> None:
    code = "import sys, absa_edit; dir(absa_edit); print([m for m in ('torch', 'peft', 'wandb') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert found.stdout.strip() == "[]"


def test_every_public_name_is_there() -> None:
    assert set(absa_edit.__all__) == set(absa_edit._HOMES)
    assert all(getattr(absa_edit, name) for name in absa_edit.__all__)
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        absa_edit.lode  # noqa: B018


@pytest.fixture
def model(small: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> absa_edit.Model:
    monkeypatch.setattr("absa_edit.api.load_model", lambda settings: small)
    return absa_edit.Model("tiny", device="cpu")


@pytest.fixture
def data(examples) -> Splits:
    whole = Dataset("mine", "train", "xml", examples, {}, ABSC.labels)
    return Splits(whole, whole, (whole,), ())


def test_any_method_trains_and_the_model_stays(model: absa_edit.Model, data: Splits) -> None:
    before = {name: value.clone() for name, value in model.lm.model.state_dict().items()}
    once = FitSettings(epochs=1)
    trained = model.edit(None, data, method=Full(lr=1e-3), fit=once)
    assert trained.adapted.kind == "full"
    assert all(torch.equal(value, before[name]) for name, value in model.lm.model.state_dict().items())
    score = trained.score(data.tests[0], draws=50)
    assert score.accuracy.n == len(data.tests[0])
    assert trained.temperature is not None
    fitted = trained.score(data.dev, fitted_temperature=True, draws=5)
    assert fitted.log_loss.value <= trained.score(data.dev, draws=5).log_loss.value
    plan = model.plan(kind="manual", layers=[1], parts=["mlp"], rank=2)
    assert [str(t.site) for t in plan.targets] == ["mlp@1"]
    edited = model.edit(plan, data, fit=once)
    assert edited.adapted.count() == plan.parameters
    assert model.plan(kind="gradient", data=data, width=1, examples=4).source == "gradient"


def test_data_that_is_not_what_was_asked_for_is_warned_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ABSA_EDIT_DATA", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.warns(UserWarning, match="THIS RUN USES THE BUNDLED SAMPLE laptop-sample, NOT laptop14"):
        absa_edit.read("laptop14", limit_train=10)


def test_aspects_of_one_sentence_are_resampled_together() -> None:
    one, other = (absa_edit.example("The screen and the fan", a, "neutral") for a in ("screen", "fan"))
    assert one.sentence_id == other.sentence_id and one.id != other.id


def test_one_pair_is_traced_for_each_answer_under_the_same_noise(model: absa_edit.Model) -> None:
    pair = [absa_edit.example("The fan never stops.", "fan", polarity) for polarity in POLARITIES]
    traces = [model.trace([one], filter=False, parts=["attn"], roles=["last"], samples=1) for one in pair]
    for name in ("clean", "corrupted"):
        assert sum(getattr(trace, name)[0] for trace in traces) == pytest.approx(1)
    with pytest.raises(DataError, match=r"the fan|trace them apart"):
        model.trace(pair, filter=False)


def test_a_sentence_of_your_own(model: absa_edit.Model) -> None:
    one = absa_edit.example("The fan never stops.", "fan", "negative")
    assert (one.start, one.end) == (4, 7)
    assert model.trace([one], filter=False, samples=1, engine="attribution").engine == "attribution"
    assert model.trace([one], filter=False, samples=1, engine="auto").exact_cells, "auto runs the cells that decide"
    with pytest.raises(DataError, match="does not stand in the sentence"):
        absa_edit.example("The fan never stops.", "screen", "negative")
    with pytest.raises(DataError, match="'bad': expected positive, negative or neutral"):
        absa_edit.example("The fan never stops.", "fan", "bad")


def test_settings_are_checked_as_on_the_command_line(model: absa_edit.Model, examples) -> None:
    with pytest.raises(SettingsError, match="exampels: no such setting of TraceSettings; there are model, adapt"):
        model.trace(examples, exampels=3)
    with pytest.raises(SettingsError, match=r"trace\.model=adapted, .*export/merged"):
        model.trace(examples, model="adapted")
    with pytest.raises(SettingsError, match="engine='fast': Input should be 'exact', 'attribution' or 'auto'"):
        model.trace(examples, engine="fast")
    with pytest.raises(SettingsError, match=r"locate\.rank=0"):
        model.plan(kind="all", rank=0)


def test_what_trains_by_itself_is_what_the_command_line_trains() -> None:
    register()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        composed = settings_from(compose("train", ["+experiment=laptop14"]))
    assert composed.method["edit"] == Edit()
