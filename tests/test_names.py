"""Variables are named by nouns that say what they hold."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VAGUE = {"asked", "every", "found", "one", "own", "said", "told", "whole"}


def test_no_variable_has_a_vague_name() -> None:
    files = [path for folder in ("absa_edit", "benchmarks", "scripts") for path in (ROOT / folder).rglob("*.py")]
    vague = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {name}"
        for path in files
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (name := _bound(node)) in VAGUE
    ]
    assert len(files) > 100 and not vague


def _bound(node: ast.AST) -> str | None:
    """The name that a node binds."""
    if isinstance(node, ast.arg):
        return node.arg
    return node.id if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) else None
