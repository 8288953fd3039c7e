"""A made-up run with numbers chosen by hand, so that every figure in a table can be looked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from absa_edit.data.prompts import ABOUT_ASPECTS
from absa_edit.records import Dataset, DataSummary, EditPlan, Example, Part, Role, Site, Target, Trace, TraceCounts
from absa_edit.results import (
    AnalysisRecord,
    Comparison,
    ExportRecord,
    Fit,
    Interval,
    MethodRecord,
    ModelSummary,
    PartDepth,
    Peak,
    Pooled,
    Prediction,
    Reliability,
    Retention,
    RunRecord,
    Score,
    Temperature,
    TraceSummary,
)
from absa_edit.table import Chart, Point, Section, Table
from absa_edit.tasks.absc import ABSC, Polarity
from absa_edit.tracing.effects import Effects

N = 638
TESTS = ("restaurant14", "laptop14", "device", "service")
MACRO = {
    "edit": (0.712, 0.655, 0.601, 0.588),
    "random": (0.684, 0.641, 0.604, 0.561),
    "zero_shot": (0.402, 0.451, 0.399, 0.377),
    "lora": (0.709, 0.648, 0.552, 0.570),
    "full": (0.726, 0.633, 0.540, 0.549),
    "delta": (0.715, 0.644, 0.572, 0.563),
    "edit_wide": (0.7125, 0.650, 0.590, 0.570),
}
TRAINABLE = {
    "edit": 34_560,
    "random": 34_560,
    "zero_shot": 0,
    "lora": 737_280,
    "full": 17_500_000,
    "delta": 2_359_296,
    "edit_wide": 69_120,
}
TRACE_COUNTS = TraceCounts(seen=100, clean_wrong=13, corrupted_right=7, kept=80)


def interval(value: float, n: int = N, half: float = 0.034) -> Interval:
    return Interval(value, value - half, value + half + 0.002, n)


def plan(layers: tuple[int, ...] = (4, 5, 6, 7), source: str = "trace") -> EditPlan:
    targets = tuple(Target(Site(i, p), 4) for i in layers for p in (Part.attn, Part.mlp))
    return EditPlan(source, targets, 34_560, 0.83)


def fit(name: str) -> Fit:
    top = MACRO[name][0]
    rows = tuple(
        {
            "epoch": float(e),
            "loss": 1.1 / e,
            "dev_accuracy": top + 0.05 - 0.2 / e**2,
            "dev_macro_f1": top - 0.2 / e**2 - 0.004 * (e == 3),
            "seconds": 4.0 * e,
        }
        for e in (1, 2, 3)
    )
    return Fit(435, 3, 12.4, 812_000_000, 16, 16, 2, rows[1]["dev_macro_f1"], rows)


def score(name: str, test: int) -> Score:
    macro = MACRO[name][test]
    confusion = ((300, 20, 21), (18, 100, 10), (40, 29, 100))
    f1 = {"positive": macro + 0.11, "negative": macro, "neutral": macro - 0.11}
    return Score(interval(macro + 0.061), interval(macro), f1, confusion, interval(1.25 - macro))


def method(name: str, tests: int) -> MethodRecord:
    kind = "edit" if name in ("random", "edit_wide") else name
    trained = TRAINABLE[name]
    return MethodRecord(
        kind=kind,
        trainable=trained,
        share=trained / 17_500_000,
        touched_share=min(1.0, 30 * trained / 17_500_000),
        lr=3e-4 if trained else None,
        fit=fit(name) if trained else None,
        score_seconds=2.5,
        perplexity=31.25 if name == "zero_shot" else 31.25 + trained / 1e6,
        bytes_on_disk=4 * trained,
        frozen_checked=bool(trained) and name != "full",
        plan=plan() if name == "edit" else plan((1, 3, 8, 11), "random") if name == "random" else None,
        scores={TESTS[i]: score(name, i) for i in range(tests)},
        reliability={TESTS[i]: reliability(name, i, 1.25) for i in range(tests)},
        temperature=Temperature(1.4 + MACRO[name][0], 240, 0.71, 0.62),
        with_temperature={TESTS[i]: reliability(name, i, 1.2) for i in range(tests)},
        retention=retention(31.25 + trained / 1e6, trained / 1e8, range(tests)),
        is_base=name == "zero_shot",
    )


def retention(perplexity: float, harm: float, tests: range) -> Retention:
    general = Score(interval(0.7 - harm, 120), interval(0.69, 120), {}, (), interval(0.58 + harm, 120))
    others = {TESTS[i]: interval(0.9 + harm + i / 100) for i in tests if TESTS[i] != "laptop14"}
    return Retention(interval(perplexity, 68, 2.0), 5021, {"general-sample": general}, others)


def reliability(name: str, test: int, above: float) -> Reliability:
    miss = above - MACRO[name][test]
    return Reliability(
        interval(miss), interval(miss / 2), interval(miss / 10), interval(miss / 4), (miss / 8, miss / 4, miss / 2)
    )


def summary(name: str, split: str, n: int) -> DataSummary:
    counts = {"positive": n - n // 2, "negative": n // 4, "neutral": n // 2 - n // 4}
    digest = {f"{name}.xml": "ab12cd34" * 8}
    return DataSummary(name, split, "xml", digest, n, counts, {"conflict": 45, "leaked": 12})


def comparison(a: str, b: str, test: str, difference: float, p: float) -> Comparison:
    return Comparison(a, b, test, "macro_f1", difference, difference - 0.02, difference + 0.02, p, min(1.0, 3 * p), N)


def pooled(a: str, b: str, question: str, tests: tuple[str, ...], metric: str, difference: float, p: float) -> Pooled:
    low, high, corrected = difference - 0.02, difference + 0.02, min(1.0, 2 * p)
    return Pooled(a, b, question, tests, metric, difference, low, high, p, corrected, N * len(tests))


def trace_summary() -> TraceSummary:
    def one(value: float) -> Interval:
        return interval(value, 80, 0.05)

    depth = {p.value: PartDepth(one(0.45), one(0.41), one(0.52)) for p in (Part.block, Part.attn, Part.mlp)}
    peak = Peak(Part.mlp, 5, Role.aspect, one(0.247))
    share = {name: d.middle_third_share.value for name, d in depth.items()}
    return TraceSummary("exact", "noise", "sentence", 3, 3, TRACE_COUNTS, 21.0, one(0.413), peak, depth, share)


@pytest.fixture
def make_record() -> Callable[..., RunRecord]:
    """A function that makes a run with some methods and test sets."""

    def make(
        names: tuple[str, ...] = ("edit", "random", "zero_shot", "lora", "full"),
        tests: int = 3,
        model: str = "reviewlm",
        layers: int = 12,
    ) -> RunRecord:
        own = "laptop14"
        data = {"train": summary(own, "train", 2282), "dev": summary(own, "dev", 240)}
        data |= {f"test/{TESTS[i]}": summary(TESTS[i], "test", N) for i in range(tests)}
        return RunRecord(
            schema=1,
            experiment="laptop14",
            seed=0,
            data=data,
            model=ModelSummary(model, model, "feedc0de" * 8, 17_500_000, layers, "float32"),
            trace=trace_summary(),
            plan=plan(),
            methods={name: method(name, tests) for name in names},
            comparisons=(
                comparison("edit", "random", "laptop14", 0.014, 0.21),
                comparison("lora", "edit", "laptop14", -0.007, 0.52),
                comparison("edit", "zero_shot", "laptop14", 0.204, 0.0004),
                comparison("edit", "random", "restaurant14", 0.028, 0.004),
            ),
            export=ExportRecord("edit", "export/adapter", "export/merged", 2.1e-06, 1.0, 1914),
            seconds={"trace": 21.0, "methods": 60.0, "export": 3.0},
            versions={"absa_edit": "0.1.0", "torch": "2.13.0"},
            git="abc1234",
            config_hash="0123456789abcdef",
            before=retention(31.25, 0.0, range(tests)),
            pooled=(
                pooled("edit", "random", "own test", ("laptop14",), "macro_f1", 0.014, 0.21),
                pooled("edit", "random", "out of domain", ("restaurant14", "device"), "macro_f1", 0.021, 0.004),
                pooled("edit", "random", "out of domain", ("restaurant14", "device"), "log_loss", -0.031, 0.009),
            ),
        )

    return make


@pytest.fixture
def record(make_record: Callable[..., RunRecord]) -> RunRecord:
    return make_record()


@pytest.fixture
def sample_record(record: RunRecord) -> RunRecord:
    """The same run on the bundled sample."""
    names = {key: replace(data, name="laptop-sample") for key, data in record.data.items() if key != "dev"}
    return replace(record, data=record.data | names)


@pytest.fixture
def make_effects() -> Callable[..., Effects]:
    """A function that makes averaged effects with a bump in the middle layers at the aspect."""

    def make(layers: int = 12, height: float = 0.28) -> Effects:
        parts = (Part.block, Part.attn, Part.mlp)
        roles = ABOUT_ASPECTS
        depth = np.linspace(0, 1, layers)
        weight = np.array([0.15, 0.9, 0.3, 0.1, 0.05, 0.8, 0.6])
        centre = np.array([0.3, 0.35, 0.4, 0.5, 0.5, 0.6, 0.95])
        bump = weight[:, None] * np.exp(-(((depth - centre[:, None]) / 0.22) ** 2))
        noise = np.random.default_rng(0).normal(0, 0.02, (3, len(roles), layers))
        aie = height * (np.array([1.0, 0.4, 0.7])[:, None, None] * bump + noise)
        n = np.array([74, 80, 61, 80, 80, 80, 80])
        half = 0.05 * height
        return Effects(parts, roles, aie, aie - half, aie + half, n, interval(0.413, 80, 0.05))

    return make


@pytest.fixture
def trace() -> Trace:
    """A trace of two examples, two layers."""
    parts, roles = (Part.block, Part.attn, Part.mlp), (Role.aspect, Role.last)
    cells = np.full((2, 3, 2, 2), 0.4)
    one = np.array([0.9, 0.8])
    return Trace(
        "exact", "noise", "sentence", 0.06, 3, 3, parts, roles, 2, TRACE_COUNTS, 21.0,
        ("a", "b"), ("s", "s"), one, one / 4, cells, one, one / 4, cells,
    )  # fmt: skip


@pytest.fixture
def predictions() -> tuple[Prediction, ...]:
    return tuple(
        Prediction(
            "edit", test, f"{test}:{i}", f"s{i}", "The fan is loud.", "fan", Polarity.negative, given,
            {"positive": 0.1, "negative": 0.7, "neutral": 0.2},
        )
        for test in ("laptop14", "restaurant14")
        for i, given in enumerate(Polarity)
    )  # fmt: skip


def dataset(name: str, split: str, rows: tuple[tuple[str, str, Polarity], ...]) -> Dataset:
    starts = [text.index(aspect) for text, aspect, _ in rows]
    examples = tuple(
        Example(f"{name}:{i}", f"{i}", text, aspect, start, start + len(aspect), gold, "laptop")
        for i, ((text, aspect, gold), start) in enumerate(zip(rows, starts, strict=True))
    )
    return Dataset(name, split, "xml", examples, {}, ABSC.labels)


@pytest.fixture
def train() -> Dataset:
    """The sentences of the traced examples."""
    rows = (("The fan is loud.", "fan", Polarity.negative), ("I like the screen.", "screen", Polarity.positive))
    made = dataset("laptop14", "train", rows)
    return made.with_examples(tuple(replace(e, id=i) for e, i in zip(made.examples, ("a", "b"), strict=True)))


@pytest.fixture
def tests() -> tuple[Dataset, ...]:
    """Two test sets; one sentence tries to be more than text, one has letters beyond 16 bits."""
    hostile = "The </script><script>document.title = 'owned'</script> key & the \N{LINE SEPARATOR}<b>fan</b>"
    rows = (
        ("\N{THUMBS UP SIGN} The screen is lovely.", "screen", Polarity.positive),
        (hostile, "fan", Polarity.negative),
        ("It has a keyboard.", "keyboard", Polarity.neutral),
    )
    return dataset("laptop14", "test", rows), dataset("restaurant14", "test", rows)


@pytest.fixture
def answers(tests: tuple[Dataset, ...]) -> dict[str, dict[str, tuple[Prediction, ...]]]:
    """Predictions by method and test set: `full` always says positive, the others are right."""

    def one(method: str, test: str, e: Example) -> Prediction:
        given = Polarity.positive if method == "full" else e.label
        rest = iter((0.15, 0.05))
        shares = {label.value: 0.8 if label is given else next(rest) for label in Polarity}
        return Prediction(method, test, e.id, e.sentence_id, e.text, e.aspect, e.label, given, shares)

    methods = ("zero_shot", "edit", "random", "lora", "full")
    return {m: {data.name: tuple(one(m, data.name, e) for e in data.examples) for data in tests} for m in methods}


@pytest.fixture
def page_inputs(
    record: RunRecord,
    make_effects: Callable[..., Effects],
    trace: Trace,
    train: Dataset,
    tests: tuple[Dataset, ...],
    answers: dict[str, dict[str, tuple[Prediction, ...]]],
) -> dict[str, Any]:
    """Everything that `report_html` takes, of a whole run."""
    return {
        "record": record,
        "effects": make_effects(),
        "trace": trace,
        "train": train,
        "tests": tests,
        "predictions": answers,
        "command": "python train.py +experiment=laptop14",
    }


@pytest.fixture
def make_page_inputs(record: RunRecord) -> Callable[..., dict[str, Any]]:
    """A function that makes what `report_html` takes, of a run of a task about whole sentences with these labels.

    Its method `edit` is right about the first example of each label and calls the second by the label after it.
    """

    def make(labels: tuple[str, ...], task: str) -> dict[str, Any]:
        size = len(labels)
        confusion = tuple(tuple(10 * i + j + 1 for j in range(size)) for i in range(size))
        f1 = {label: 0.9 - 0.1 * i for i, label in enumerate(labels)}
        score = Score(interval(0.7), interval(0.6), f1, confusion, interval(0.65))
        names = ("zero_shot", "edit", "random")
        methods = {name: replace(record.methods[name], scores={"mine": score}) for name in names}
        counts = {label: 7 + i for i, label in enumerate(labels)}
        splits = ("train", "dev", "test/mine")
        data = {
            key: DataSummary("mine", key.split("/")[0], "csv", {"m.csv": "0" * 64}, N, counts, {}) for key in splits
        }
        texts = [f"Sentence {i} tells of {label}." for label in labels for i in (1, 2)]
        examples = tuple(
            Example(f"mine:{i}", f"{i}", text, "", 0, 0, labels[i // 2], "mine") for i, text in enumerate(texts)
        )

        def answer(method: str, i: int, e: Example) -> Prediction:
            given = labels[(i // 2 + i % 2 * (method == "edit")) % size]
            shares = {label: round(0.6 if label == given else 0.4 / (size - 1), 3) for label in labels}
            return Prediction(method, "mine", e.id, e.sentence_id, e.text, "", e.label, given, shares)

        assert record.trace
        trace = replace(record.trace, peak=replace(record.trace.peak, role=Role.sentence))
        made = replace(
            record,
            trace=trace,
            task=task,
            labels=labels,
            data=data,
            methods=methods,
            comparisons=(comparison("edit", "random", "mine", 0.014, 0.21),),
        )
        return {
            "record": made,
            "tests": (Dataset("mine", "test", "csv", examples, {}, labels),),
            "predictions": {m: {"mine": tuple(answer(m, i, e) for i, e in enumerate(examples))} for m in names},
        }

    return make


@pytest.fixture
def analysis() -> AnalysisRecord:
    """What a made-up analysis found, with a table and a chart of two lines."""
    layers = range(1, 5)
    lines = {
        name: tuple(Point(float(x), y := 0.1 * x + shift, y - 0.05, y + 0.05) for x in layers)
        for name, shift in (("at the aspect", 0.1), ("at the last token", 0.3))
    }
    table = Table(("layer", "read"), tuple((str(x), f"**{10 * x}.0** of `all`") for x in layers), "What was read.")
    section = Section("What can be read off", "Layer 4 says `most`.", table, Chart("layer", "share read", lines))
    return AnalysisRecord({"best": 0.7, "layer": 4, "name": "probe", "by_layer": [0.1, 0.2]}, section)
