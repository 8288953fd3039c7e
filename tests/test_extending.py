"""A plug-in is one short file: each socket filled here in at most 25 lines, and run from end to end."""

from __future__ import annotations

import ast
import inspect
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runs import ROOT, execute, settings

import absa_edit
from absa_edit.analyses.base import Analysis, analysis
from absa_edit.analyses.settings import ANALYSES, AnalysisSettings
from absa_edit.context import Context
from absa_edit.data.assemble import Row
from absa_edit.data.readers.base import READERS, reader
from absa_edit.data.settings import DataSettings
from absa_edit.errors import SettingsError
from absa_edit.localizers.base import Localizer, SiteScores, localizer
from absa_edit.localizers.settings import LOCALIZERS, LocateSettings
from absa_edit.methods.adapted_model import AdaptedModel
from absa_edit.methods.base import Method, method
from absa_edit.methods.settings import METHODS, MethodSettings
from absa_edit.methods.zero_shot import ZeroShot
from absa_edit.pipeline.stages import methods as method_stage
from absa_edit.records import EditPlan, Site
from absa_edit.registry import load_plugins
from absa_edit.settings import Settings, Stage
from absa_edit.table import Chart, Point, Section, Table
from absa_edit.tasks.base import TASKS, Task, task
from absa_edit.tasks.settings import TaskSettings
from absa_edit.tracking.wandb import NullTracker, Value

LONGEST = 25
STARS = ("awful", "poor", "mixed", "good", "great")


def stars() -> None:
    """A task with five labels."""
    task("stars")(
        Task(
            labels=STARS,
            template="A review says: '{sentence}' The verdict is",
            asks_aspect=False,
            spellings={str(number): label for number, label in enumerate(STARS, 1)},
        )
    )


def pipes() -> None:
    """A data format: a text, a bar, a label."""

    @reader(".pipes")
    def rows(content: bytes, path: Path, task: Task) -> Iterator[Row]:
        for number, line in enumerate(content.decode().splitlines(), 1):
            text, _, label = line.rpartition("|")
            yield Row(f"line {number}", text, 0, 0, label)


def norms() -> None:
    """A localizer: sites by the size of their weights."""

    @localizer("norms")
    class Norms(Localizer):
        def score(self, ctx: Context, settings: LocateSettings) -> SiteScores:
            runner = ctx.lm.runner
            sizes = [
                [float(runner.module(Site(layer, part)).weight.norm()) for layer in range(runner.layers)]
                for part in settings.parts
            ]
            return SiteScores.of(np.array([sizes]), ["all"])


def scales() -> None:
    """A method: the norms of the located blocks."""

    @dataclass
    class Scales(MethodSettings):
        lr: float = 1e-2

    @method("scales")
    class NormScales(Method):
        settings = Scales

        def apply(self, ctx: Context, plan: EditPlan | None, settings: MethodSettings) -> AdaptedModel:
            model = ctx.copy_of_model()
            blocks = list(model.model.layers)[6:]
            for block in blocks:
                block.input_layernorm.weight.requires_grad_(True)
            touched = sum(block.input_layernorm.weight.numel() for block in blocks)
            return AdaptedModel(self.name, model, lr={"weights": settings.lr}, start=6, touched=touched)


def lengths() -> None:
    """An analysis: how long the prompts are."""

    @analysis("lengths")
    class Lengths(Analysis):
        def run(self, ctx: Context, settings: AnalysisSettings) -> dict[str, Any]:
            counts = [len(prompt.ids) for prompt in ctx.encode(ctx.splits.train)]
            return {"mean": float(np.mean(counts)), "counts": sorted(counts)}

        def section(self, record: dict[str, Any]) -> Section:
            points = tuple(Point(i, n, n, n) for i, n in enumerate(record["counts"]))
            table = Table(("prompts", "mean tokens"), ((str(len(points)), f"{record['mean']:.1f}"),))
            sentence = f"Prompts have {record['mean']:.1f} tokens on average."
            return Section("How long prompts are", sentence, table, Chart("prompt", "tokens", {"train": points}))


PLUGINS = (stars, pipes, norms, scales, lengths)


@pytest.fixture
def registered() -> Iterator[None]:
    """The plug-ins, for one test."""
    registries = (TASKS, READERS, LOCALIZERS, METHODS, ANALYSES)
    before = [(registry, {name: registry[name] for name in registry}) for registry in registries]
    for plugin in PLUGINS:
        plugin()
    yield
    for registry, plugins in before:
        registry._found = plugins


def reviews(path: Path, seed: int, count: int) -> Path:
    """Made-up reviews, a label each."""
    rng = np.random.default_rng(seed)
    things, words = ("screen", "fan", "box", "lid", "cable", "pump", "lamp", "door"), dict(enumerate(STARS))
    numbers = rng.integers(0, 5, count)
    lines = [f"The {things[rng.integers(8)]} number {i} was {words[n]} to me.|{n + 1}" for i, n in enumerate(numbers)]
    path.write_text("\n".join(lines))
    return path


def run_settings(tmp_path: Path) -> Settings:
    train, test = reviews(tmp_path / "train.pipes", 0, 60), reviews(tmp_path / "test.pipes", 1, 20)
    return settings(
        tmp_path / "out",
        name="stars",
        task=TaskSettings("stars"),
        data=DataSettings(name="mine", train=str(train), test=str(test)),
        locate=LocateSettings(kind="norms", width=2),
        method={"zero_shot": ZeroShot(), "scales": METHODS["scales"].settings(), "edit": METHODS["edit"].settings()},
        analysis={"lengths": AnalysisSettings()},
        compare=[["scales", "zero_shot"], ["edit", "scales"]],
        stages=list(Stage),
    )


def test_plug_ins_are_short() -> None:
    for plugin in PLUGINS:
        (function,) = ast.parse(inspect.getsource(plugin)).body
        assert isinstance(function, ast.FunctionDef)
        assert len(inspect.getsource(plugin).splitlines()) - 2 <= LONGEST, plugin.__name__


class Notebook(NullTracker):
    """A tracker that keeps the tables that it is given."""

    def __init__(self) -> None:
        self.tables: dict[str, str] = {}

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Value]]) -> None:
        self.tables[name] = self.tables.get(name, "") + f"{list(columns)} {[list(row) for row in rows]}"


def test_plug_ins_run_from_end_to_end(registered: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = Notebook()
    monkeypatch.setattr(method_stage, "track", lambda *given, **about: nullcontext(notebook))
    run, record, terminal = execute(run_settings(tmp_path))
    assert "How long" not in notebook.tables["compare/scores"] and "scales" in notebook.tables["compare/scores"]
    assert "mean tokens" in notebook.tables["analysis/lengths"]
    assert all(label in notebook.tables["predictions"] for label in STARS)
    kept = json.loads((run.folder / "results.json").read_text())
    assert (kept["task"], tuple(kept["labels"])) == ("stars", STARS)
    assert kept["data"]["train"]["source"] == "pipes" and list(kept["data"]["train"]["counts"]) == list(STARS)
    assert kept["plan"]["source"] == "norms" and len(kept["plan"]["targets"]) == 4
    assert kept["methods"]["scales"]["kind"] == "scales" and kept["methods"]["scales"]["trainable"] == 6 * 320
    assert [(c["a"], c["b"]) for c in kept["comparisons"][::3]] == [("scales", "zero_shot"), ("edit", "scales")]
    for row in kept["methods"].values():
        (score,) = row["scores"].values()
        assert list(score["f1"]) == list(STARS)
        assert np.array(score["confusion"]).shape == (5, 5) and np.array(score["confusion"]).sum() == 20
    assert kept["trace"]["peak"]["role"] in ("sentence", "punctuation", "question", "last", "aspect")
    assert record.export is not None and (record.export.method, record.export.agreement) == ("scales", 1.0)
    loaded = absa_edit.load(run.folder)
    (answer,) = loaded.predict(["The lamp was great to me."])
    assert list(answer) == list(STARS) and sum(answer.values()) == pytest.approx(1)
    reports = [(run.folder / name).read_text() for name in ("report.md", "report.html")]
    for text in (*reports, terminal):
        for wanted in ("scales", "norms", "Prompts have", "How long prompts are"):
            assert wanted in text, wanted
    for label in STARS:
        assert all(label in text for text in reports), label


def test_an_unknown_plug_in_lists_those_there_are_and_the_nearest(registered: None) -> None:
    for registry, wrong, near in (
        (TASKS, "star", "stars"), (LOCALIZERS, "norm", "norms"), (METHODS, "scale", "scales"),
        (ANALYSES, "length", "lengths"), (READERS, ".pipe", ".pipes"),
    ):  # fmt: skip
        with pytest.raises(
            SettingsError, match=rf"no {registry.kind} is called '{wrong}'\. Did you mean {near}\? There"
        ):
            registry[wrong]


def test_two_plug_ins_cannot_share_a_name(registered: None) -> None:
    with pytest.raises(SettingsError, match="localizer 'trace' is defined twice"):
        localizer("trace")(type("Other", (Localizer,), {}))


def test_a_file_of_ones_own_on_the_command_line(tmp_path: Path) -> None:
    """Its plug-ins are options like any other, and what is kept of a run depends on the file's content."""
    source = inspect.getsource(norms)
    body = "\n".join(line.removeprefix("    ") for line in source.splitlines()[3:])
    head = "\n".join(
        line for line in Path(__file__).read_text().splitlines() if line.startswith(("from absa", "import n"))
    )
    (tmp_path / "mine.py").write_text(f"{head}\n\n{body}\n")
    command = [sys.executable, "-m", "absa_edit", "train", "+experiment=smoke", f"output={tmp_path / 'out'}",
               f"plugins=[{tmp_path / 'mine.py'}]", "locate=norms", "stages=[locate]"]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (plan,) = (tmp_path / "out").rglob("plan.json")
    assert json.loads(plan.read_text())["source"] == "norms"
    (tmp_path / "mine.py").write_text("localizer = 1 / 0")
    with pytest.raises(SettingsError, match=r"mine\.py: it cannot be run \(ZeroDivisionError"):
        load_plugins([str(tmp_path / "mine.py")])
    with pytest.raises(SettingsError, match=r"yours\.py: no such file"):
        load_plugins([str(tmp_path / "yours.py")])
