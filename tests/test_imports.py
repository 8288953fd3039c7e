"""Imports point one way, and each heavy library stays in its room."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "absa_edit"

LAYERS = (
    {"errors", "records", "results", "storage", "config", "compose", "progress", "statistics", "notebook"},
    {"data", "lm"},
    {"trace", "locate", "adapt", "evaluate"},
    {"fit", "export", "report"},
    {"run", "stages", "pipeline", "api"},
)
SAME_LAYER = {
    ("locate", "trace"),  # a localiser reads traces
    ("evaluate", "adapt"),  # predictions are an adapted model's
    ("stages", "run"),
    *(("pipeline", part) for part in ("run", "stages")),
    *((a, b) for a in LAYERS[0] for b in LAYERS[0]),
}
HOME = {
    "hydra": {"compose"},
    "omegaconf": {"config", "compose"},
    "wandb": {"report"},
    "jinja2": {"report"},
    "matplotlib": {"report"},
    "rich": {"report", "pipeline"},
    "peft": {"adapt", "export"},
    "accelerate": {"fit"},
    "datasets": {"data", "evaluate"},
    "pandas": {"data"},
}


def room(module: str) -> str:
    """`trace` for `absa_edit.trace.exact`."""
    return module.split(".")[1] if "." in module else "__init__"


def imports() -> Iterator[tuple[str, str]]:
    """Every (file, imported module) of the package, wherever the import stands."""
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from ((name, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                yield name, node.module


def test_imports_point_down() -> None:
    level = {one: number for number, layer in enumerate(LAYERS) for one in layer}
    wrong = []
    for importer, module in imports():
        if not module.startswith("absa_edit.") or importer == "absa_edit.__init__":
            continue
        a, b = room(importer), room(module)
        if a != b and level[b] >= level[a] and (a, b) not in SAME_LAYER:
            wrong.append(f"{importer} imports {module}")
    assert not wrong


def test_every_room_has_a_layer() -> None:
    rooms = {p.stem for p in PACKAGE.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()}
    assert rooms - {"__init__"} == set().union(*LAYERS)


def test_heavy_libraries_stay_in_their_rooms() -> None:
    strays = [
        f"{importer} imports {module}"
        for importer, module in imports()
        if (top := module.split(".")[0]) in HOME and room(importer) not in HOME[top]
    ]
    assert not strays


def test_nothing_prints_or_reads_the_environment_at_import() -> None:
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            called = node.func if isinstance(node, ast.Call) else None
            assert not (isinstance(called, ast.Name) and called.id == "print"), f"{path.name} prints"
        for statement in tree.body:
            assert not (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call)), path.name
