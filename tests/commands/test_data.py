"""`absa-edit data fetch` against a server that stands in for the hub."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pandas as pd
import pytest

from absa_edit.data.public_sets import PUBLIC
from absa_edit.data.settings import DataSettings
from absa_edit.data.sources import load_pair
from absa_edit.tasks.absc import POLARITIES

LAPTOP = PUBLIC["laptop14"]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def parquet(split: str) -> bytes:
    """A made-up split with the official number of aspects in each class."""
    rows = [
        {"text": f"The lid number {n} is {polarity}.", "span": "lid", "label": polarity, "ordinal": 0}
        for polarity, count in zip(POLARITIES, LAPTOP.counts[split], strict=True)
        for n in range(count)
    ]
    file = io.BytesIO()
    pd.DataFrame(rows).to_parquet(file)
    return file.getvalue()


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """The address of a hub that has one data set of two parquet files."""
    files = {f"data/{split}-00000-of-00001.parquet": parquet(split) for split in ("train", "test")}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.split("?")[0]
            name = path.split(f"/{COMMIT}/")[-1] if f"/resolve/{COMMIT}/" in path else ""
            if name in files:
                self.answer(files[name], "application/octet-stream")
            elif path.startswith(f"/api/datasets/{LAPTOP.hub}/tree/"):
                within = path.split(f"/tree/{COMMIT}")[-1].strip("/")
                listed = [
                    {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                    for name, content in files.items()
                    if name.startswith(within)
                ]
                folder = [] if within else [{"type": "directory", "path": "data", "size": 0, "oid": COMMIT}]
                self.answer(json.dumps(listed + folder).encode(), "application/json")
            elif path.startswith(f"/api/datasets/{LAPTOP.hub}"):
                siblings = [{"rfilename": name} for name in files]
                about = {"id": LAPTOP.hub, "sha": COMMIT, "private": False, "siblings": siblings, "tags": []}
                self.answer(json.dumps(about).encode(), "application/json")
            else:
                self.send_response(404)
                self.send_header("X-Error-Code", "EntryNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()

        do_HEAD = do_GET

        def answer(self, content: bytes, kind: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "ABSA_EDIT"))}
    return subprocess.run(
        [sys.executable, "-m", "absa_edit", "data", "fetch", *arguments],
        env=kept | environ,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_hub_set_is_fetched_and_found_by_a_run(endpoint: str, tmp_path: Path) -> None:
    out = tmp_path / "data"
    done = run("laptop14", "--out", str(out), HF_ENDPOINT=endpoint, HF_HOME=str(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr
    assert "2313 aspects, 987 positive, 866 negative, 460 neutral; sha256 " in done.stdout
    assert "licence of laptop14: SemEval-2014 task 4" in done.stdout
    train, test = load_pair(DataSettings(name="laptop14"), root=tmp_path, environ={})
    assert (len(train), len(test), train.source) == (2313, 638, "jsonl")


def test_errors_are_one_line(tmp_path: Path) -> None:
    closed = "http://127.0.0.1:9"
    done = run("laptop14", "--out", str(tmp_path), HF_ENDPOINT=closed, HF_HOME=str(tmp_path / "cache"))
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: the hub's {LAPTOP.hub} could not be had (")
    assert done.stderr.count("\n") == 1
    unknown = run("labtop14")
    assert unknown.stderr.startswith("error: name=labtop14: no such data set. Did you mean laptop14?")
