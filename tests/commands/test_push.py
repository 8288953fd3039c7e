"""`absa-edit push` against a stand-in for the hub on this machine."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


class Hub(ThreadingHTTPServer):
    """What the hub was asked to do, and whether the repository is private."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.created: list[dict[str, Any]] = []
        self.files: dict[str, bytes] = {}
        self.private = True
        self.status = 200
        self.address = "http://{}:{}".format(*self.server_address)


class Handler(BaseHTTPRequestHandler):
    """The few calls that an upload of small files makes."""

    server: Hub

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.status != 200 or "secret" not in self.headers.get("Authorization", ""):
            return self.answer({"error": "no"}, 401)
        if self.path == "/api/repos/create":
            self.server.created.append(json.loads(body))
            return self.answer({"url": f"{self.server.address}/me/edit", "name": "me/edit", "id": "1"})
        if self.path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        if "/preupload/" in self.path:
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]
            return self.answer({"files": files})
        assert "/commit/" in self.path
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                self.server.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        commit = f"{self.server.address}/me/edit/commit/c0ffee"
        self.answer({"commitUrl": commit, "commitOid": "c0ffee", "pullRequestUrl": None})

    def do_GET(self) -> None:
        self.answer({"id": "me/edit", "private": self.server.private, "siblings": [], "tags": []})

    def answer(self, value: dict[str, Any], status: int = 200) -> None:
        payload = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    for kind in ("adapter", "merged"):
        folder = tmp_path / "run" / "export" / kind
        folder.mkdir(parents=True)
        (folder / "README.md").write_text(f"---\nlanguage: en\n---\n# {kind}\n")
        (folder / "absa_edit.json").write_text("{}")
    (tmp_path / "run" / "results.json").write_text("{}")
    return tmp_path / "run"


def push(hub: Hub, *arguments: str | Path, token: str = "secret") -> subprocess.CompletedProcess[str]:
    environ = {k: v for k, v in os.environ.items() if k != "HF_HUB_OFFLINE" and "proxy" not in k.lower()}
    environ |= {"HF_ENDPOINT": hub.address, "HF_TOKEN": token, "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    command = [sys.executable, "-m", "absa_edit", "push", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=100)


def test_the_adapter_goes_to_a_private_repository(hub: Hub, run_folder: Path) -> None:
    done = push(hub, run_folder, "me/edit")
    assert done.stdout.strip() == f"{hub.address}/me/edit/commit/c0ffee", done.stderr
    (asked,) = hub.created
    assert (asked["name"], asked["visibility"]) == ("edit", "private")
    assert sorted(hub.files) == ["README.md", "absa_edit.json"], "the export, nothing else of the run"
    assert b"# adapter" in hub.files["README.md"]


def test_public_and_merged_have_to_be_asked_for(hub: Hub, run_folder: Path) -> None:
    hub.private = False
    refused = push(hub, run_folder, "me/edit")
    assert refused.returncode == 1 and "everybody can read it; push with --public" in refused.stderr
    assert not hub.files
    assert push(hub, run_folder, "me/edit", "--merged", "--public").returncode == 0
    assert hub.created[-1]["visibility"] == "public"
    assert b"# merged" in hub.files["README.md"]


def test_a_private_repository_is_not_opened_by_pushing(hub: Hub, run_folder: Path) -> None:
    refused = push(hub, run_folder, "me/edit", "--public")
    assert refused.returncode == 1 and "exists and is private" in refused.stderr and not hub.files


def test_without_a_connection_it_says_so(hub: Hub, run_folder: Path) -> None:
    hub.address = "http://127.0.0.1:9"
    refused = push(hub, run_folder, "me/edit")
    assert refused.returncode == 1 and refused.stderr.startswith("error: me/edit: "), refused.stderr
    assert "the connection" in refused.stderr


def test_a_folder_of_the_other_kind_is_refused(hub: Hub, run_folder: Path) -> None:
    adapter, merged = run_folder / "export" / "adapter", run_folder / "export" / "merged"
    (merged / "config.json").write_text("{}")
    for arguments in ((adapter, "me/edit", "--merged"), (merged, "me/edit")):
        refused = push(hub, *arguments)
        assert refused.returncode == 1 and " in it; expected a run folder" in refused.stderr and not hub.files
    assert push(hub, merged, "me/edit", "--merged").returncode == 0


def test_without_a_login_or_an_export_it_says_what_to_do(hub: Hub, run_folder: Path, tmp_path: Path) -> None:
    hub.status = 401
    refused = push(hub, run_folder, "me/edit")
    assert refused.returncode == 1 and "hf auth login" in refused.stderr and "Traceback" not in refused.stderr
    nothing = push(hub, tmp_path, "me/edit")
    assert nothing.returncode == 1 and "no adapter in it" in nothing.stderr
