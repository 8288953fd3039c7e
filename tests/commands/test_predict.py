"""`absa-edit predict` on a merged checkpoint of a tiny model: one pair, files, streams, what it says when it cannot."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import pytest
from contexts import adapt

from absa_edit.cli import main
from absa_edit.commands import predict as command
from absa_edit.export.folder import describe, write_merged
from absa_edit.inference.classifier import load
from absa_edit.methods.zero_shot import ZeroShot
from absa_edit.model.loading import LanguageModel
from absa_edit.model.settings import ModelSettings
from absa_edit.tasks.absc import ABSC
from absa_edit.tasks.base import TASKS

Run = Callable[..., tuple[object, str, str]]
PAIRS = [("The fan never stops.", "fan"), ("Great price!", "price"), ("A lovely screen", "screen")]


@pytest.fixture(scope="session")
def export(small: LanguageModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "export" / "merged"
    adapted = adapt(small.model, ZeroShot(), None, seed=0)
    about = describe(adapted, ModelSettings(name="tiny"), "0", ABSC.prompt(), ABSC)
    write_merged(adapted, small.tokenizer, folder, about, "")
    return folder.parents[1]


@pytest.fixture
def predict(export: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str, stdin: str | None = None) -> tuple[object, str, str]:
        """Exit code, standard output, standard error."""
        stream = io.BytesIO((stdin or "").encode())
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=stream, isatty=lambda: stdin is None))
        code: object = 0
        try:
            main(["predict", str(export), "--device", "cpu", *arguments])
        except SystemExit as error:
            code = error.code
        return code, *capsys.readouterr()

    return run


def expected(export: Path) -> list[dict[str, float]]:
    return load(export, device="cpu").predict(*map(list, zip(*PAIRS, strict=True)))


def lines(out: str) -> list[dict]:
    return [json.loads(line) for line in out.splitlines()]


def test_standard_input_to_standard_output(predict: Run, export: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "TOGETHER", 2)  # so that three pairs are two batches
    rows = [{"sentence": s, "aspect": a, "id": i} for i, (s, a) in enumerate(PAIRS)]
    code, out, _ = predict(stdin="\n".join(map(json.dumps, rows)))
    assert code == 0
    for answer, row, p in zip(lines(out), rows, expected(export), strict=True):
        assert answer | row == answer, "the row comes back as it was"
        assert answer["probabilities"] == pytest.approx(p, abs=1e-5)
        assert answer["predicted"] == max(p, key=p.__getitem__)


def test_the_fitted_temperature_is_used_where_it_is_asked_for(predict: Run, export: Path, tmp_path: Path) -> None:
    stdin = "\n".join(json.dumps({"sentence": s, "aspect": a}) for s, a in PAIRS)
    code, out, _ = predict("--fitted-temperature", stdin=stdin)
    assert not out and "fitted_temperature: this export has none" in str(code)
    file = export / "export" / "merged" / "absa_edit.json"
    before = file.read_text()
    file.write_text(json.dumps({**json.loads(before), "temperature": 0.5}))
    try:
        _, out, _ = predict("--fitted-temperature", stdin=stdin)
        one, shown, _ = predict("--sentence", PAIRS[0][0], "--aspect", PAIRS[0][1], "--fitted-temperature")
    finally:
        file.write_text(before)
    assert one == 0
    for answer, p in zip(lines(out), expected(export), strict=True):
        squares = {label: v**2 for label, v in p.items()}
        total = sum(squares.values())
        wanted = {label: v / total for label, v in squares.items()}
        assert answer["probabilities"] == pytest.approx(wanted, abs=1e-5)
    assert f"{lines(out)[0]['probabilities']['positive']:.3f}" in shown


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".xml"])
def test_every_format_gives_the_same_answers(predict: Run, export: Path, tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"pairs{suffix}"
    file.write_text({
        ".jsonl": "\n".join(json.dumps({"sentence": s, "aspect": a}) for s, a in PAIRS),
        ".csv": "text,span\n" + "\n".join(f"{s},{a}" for s, a in PAIRS),
        ".xml": "<sentences>" + "".join(
            f'<sentence id="1"><text>{s}</text><aspectTerm term="{a}"/></sentence>' for s, a in PAIRS
        ) + "</sentences>",
    }[suffix])  # fmt: skip
    code, out, _ = predict("--file", str(file))
    assert code == 0
    for answer, p in zip(lines(out), expected(export), strict=True):
        assert answer["probabilities"] == pytest.approx(p, abs=1e-5)


def test_one_pair_is_explained(predict: Run) -> None:
    code, out, _ = predict("--sentence", "The fan never stops.", "--aspect", "fan", "--explain")
    assert code == 0
    for text in ("positive", "negative", "neutral", "with noise on the sentence", "never", "points"):
        assert text in out


@pytest.mark.parametrize(
    ("arguments", "stdin", "said"),
    [
        ((), '{"sentence": "a fan"}', "standard input, line 1: no column"),
        ((), "", "standard input: no pairs in it"),
        (("--file", "."), None, ".: no such file"),
        ((), None, "nothing to answer"),
        (("--file", "none.csv"), None, "none.csv: no such file"),
        (("--sentence", "a fan", "--aspect", "screen"), None, "'screen' does not stand in the sentence"),
        (("--sentence", "a fan"), None, "is asked about aspects: give --aspect too, as it is written in the sentence"),
        (("--sentence", "a fan", "--aspect", ""), None, "2"),
        (("--aspect", "fan"), None, "2"),
        (("--sentence", "a fan", "--file", "none.csv"), None, "2"),
        (("--explain",), "", "2"),
    ],
)
def test_what_cannot_be_answered_is_one_clear_error(predict: Run, arguments, stdin, said) -> None:
    code, out, _ = predict(*arguments, stdin=stdin)
    assert said in str(code) and not out


LONG = "fan " * 600


@pytest.mark.parametrize("wrong", ['{"sentence": "a fan"}', json.dumps({"sentence": LONG, "aspect": "fan"})])
def test_what_came_before_a_row_that_cannot_be_answered_is_answered(predict: Run, wrong: str) -> None:
    rows = [json.dumps({"sentence": s, "aspect": a}) for s, a in PAIRS]
    code, out, _ = predict(stdin="\n".join([*rows, wrong, *rows]))
    assert [row["sentence"] for row in lines(out)] == [s for s, _ in PAIRS]
    assert "line 4" in str(code)


def test_half_a_character_beside_the_question_comes_back(predict: Run) -> None:
    code, out, _ = predict(stdin='{"sentence": "A fan\u00e9", "aspect": "fan", "note": "\\ud83d"}')
    assert code == 0 and lines(out)[0]["note"] == "\ud83d" and "fan\u00e9" in out


def test_a_closed_standard_input_is_nothing_to_answer(predict: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(SystemExit, match="nothing to answer"):
        main(["predict", "somewhere"])


@pytest.mark.parametrize("name", ["pairs", "pipe"])
def test_files_without_a_suffix_and_pipes_are_json_lines(predict: Run, tmp_path: Path, name: str) -> None:
    row, file = json.dumps({"sentence": "A fan", "aspect": "fan"}), tmp_path / name
    if name == "pipe":
        os.mkfifo(file)
        Thread(target=file.write_text, args=(row,)).start()
    else:
        file.write_text(row)
    code, out, _ = predict("--file", str(file))
    assert code == 0 and len(lines(out)) == 1


def test_a_model_of_sentences_takes_no_aspect(
    small: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    task = TASKS["sentence_polarity"]
    adapted = adapt(small.model, ZeroShot(), None, seed=0)
    about = describe(adapted, ModelSettings(name="tiny"), "0", task.prompt(), task)
    write_merged(adapted, small.tokenizer, tmp_path / "export" / "merged", about, "")
    ask = ["predict", str(tmp_path), "--device", "cpu"]
    main([*ask, "--sentence", "A lovely film.", "--explain"])
    told = capsys.readouterr().out
    assert "positive" in told and "neutral" not in told and "with noise on the sentence" in told
    with pytest.raises(SystemExit, match="is asked about whole sentences: leave out --aspect"):
        main([*ask, "--sentence", "A lovely film.", "--aspect", "film"])
    file = tmp_path / "films.jsonl"
    file.write_text(json.dumps({"sentence": "A lovely film."}))
    main([*ask, "--file", str(file)])
    (answer,) = lines(capsys.readouterr().out)
    assert list(answer["probabilities"]) == ["positive", "negative"]
