"""Bring the README's pictures up to date from finished runs.

    python scripts/figures.py outputs/laptop14/reviewlm/seed0 outputs/laptop-sample/reviewlm/seed0

Of a run on public data the trace's heat map goes to `docs/`; of a run on the bundled sample an example token by token,
and the page as a browser shows it: these have sentences in them, which other data's licences forbid.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from absa_edit.data.public_sets import sample_domain
from absa_edit.errors import AbsaEditError, RecordError
from absa_edit.results import RunRecord
from absa_edit.storage import load

DOCS = Path(__file__).resolve().parents[1] / "docs"
WINDOW = "1100,1500"
"""Width and height of the browser's window, in pixels."""


def pictures(run: Path) -> dict[str, Path]:
    """Where each picture of a run lies, by its name in `docs/`."""
    if not (run / "results.json").exists():
        raise RecordError(f"{run}: no results.json in it; expected the folder of a finished run")
    record = load(RunRecord, run / "results.json")
    name, figures = record.experiment, run / "figures"  # a variant's is not the README's
    paths = {f"{name}_trace.png": figures / "trace.png"}
    if sample_domain(record.data["train"].name):
        paths = {f"{name}_tokens.png": figures / "trace_tokens_1.png", f"{name}_report.png": run / "report.html"}
    for path in paths.values():
        if not path.exists():
            raise RecordError(f"{run}: no {path.relative_to(run)} in it; run its experiment with all stages")
    return paths


def photograph(page: Path, picture: Path) -> None:
    """A screenshot of the head of a page, by Debian's Chromium."""
    browser = shutil.which("chromium")
    if browser is None:
        raise RecordError(f"{picture.name} needs Chromium, which is not installed here: apt-get install chromium")
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder) / "shot.png"
        options = ["--headless", "--no-sandbox", "--disable-gpu", f"--window-size={WINDOW}", f"--screenshot={shot}"]
        subprocess.run([browser, *options, page.resolve().as_uri()], check=True, capture_output=True, timeout=60)
        shutil.copyfile(shot, picture)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="run folders")
    DOCS.mkdir(exist_ok=True)
    try:
        for run in parser.parse_args().runs:
            for name, path in pictures(run).items():
                photograph(path, DOCS / name) if path.suffix == ".html" else shutil.copyfile(path, DOCS / name)
                print(f"docs/{name} from {path}")
    except AbsaEditError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
