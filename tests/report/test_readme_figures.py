"""Pictures for the README are taken of finished runs, and show no sentence of a licensed data set."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from absa_edit.errors import RecordError
from absa_edit.results import RunRecord
from absa_edit.storage import write_json

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
LEFT = ("figures/trace.png", "figures/trace_tokens_1.png", "report.html")


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import figures

    return figures


def finished(record: RunRecord, folder: Path) -> Path:
    (folder / "figures").mkdir(parents=True)
    write_json(record, folder / "results.json")
    for name in LEFT:
        (folder / name).write_text("", encoding="utf-8")
    return folder


def test_runs_on_licensed_data_show_averages_only(figures: ModuleType, record: RunRecord, tmp_path: Path) -> None:
    found = figures.pictures(finished(record, tmp_path / "run"))
    assert found == {"laptop14_trace.png": tmp_path / "run" / "figures" / "trace.png"}


def test_a_variant_does_not_take_the_plain_runs_place(figures: ModuleType, record: RunRecord, tmp_path: Path) -> None:
    variant = replace(record, experiment="laptop14+locate=random")
    assert list(figures.pictures(finished(variant, tmp_path / "run"))) == ["laptop14+locate=random_trace.png"]


def test_runs_on_the_sample_show_sentences(figures: ModuleType, sample_record: RunRecord, tmp_path: Path) -> None:
    found = figures.pictures(finished(sample_record, tmp_path / "run"))
    assert {str(path.relative_to(tmp_path / "run")) for path in found.values()} == set(LEFT[1:])


def test_a_run_without_its_pictures_is_told_how_to_have_them(figures: ModuleType, sample_record, tmp_path) -> None:
    folder = finished(sample_record, tmp_path / "run")
    (folder / "figures/trace_tokens_1.png").unlink()
    with pytest.raises(RecordError, match=r"no figures/trace_tokens_1\.png .* all stages"):
        figures.pictures(folder)


def test_no_browser_is_an_error_that_names_it(figures: ModuleType, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(RecordError, match="apt-get install chromium"):
        figures.photograph(tmp_path / "report.html", tmp_path / "report.png")
    assert not (tmp_path / "report.png").exists()
