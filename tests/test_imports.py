"""Imports point one way, file by file and without a circle, and each heavy library stays in its room."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from absa_edit.localizers.settings import LOCALIZERS
from absa_edit.methods.settings import METHODS

PACKAGE = Path(__file__).resolve().parents[1] / "absa_edit"

LAYERS = (
    ("errors", "progress", "html_table", "table"),
    ("records", "registry"),
    ("data.settings", "analyses.settings"),
    ("tasks",),
    ("results",),
    ("storage", "resampling"),
    ("model.settings", "localizers.settings"),
    ("tracing.settings",),
    ("methods.settings", "training.settings", "evaluation.settings", "export.settings", "tracking.settings"),
    ("settings",),
    ("compose",),
    ("data",),
    ("model",),
    ("tracing",),
    ("context",),
    ("methods", "localizers", "analyses"),
    ("evaluation",),
    ("report.formatting", "report.lookup", "report.tables"),
    ("training", "export"),
    ("inference",),
    ("report",),
    ("tracking", "leaderboard"),
    ("pipeline", "api"),
    ("commands",),
    ("cli",),
    ("__main__",),
)
"""From the ground up. A file belongs to the longest name here that begins its own; it may import files of lower layers,
and files of its own room."""
HOME = {
    "hydra": {"compose", "commands"},
    "omegaconf": {"compose", "commands", "data", "leaderboard", "localizers", "methods", "model", "settings"},
    "wandb": {"tracking"},
    "jinja2": {"report"},
    "matplotlib": {"report"},
    "rich": {"report", "pipeline", "leaderboard", "commands"},
    "sklearn": {"commands"},
    "peft": {"methods", "export"},
    "accelerate": {"training"},
    "datasets": {"data", "evaluation"},
    "pandas": {"data"},
}


def files() -> Iterator[tuple[str, ast.Module]]:
    """Every file of the package as a module name below it, and its syntax tree."""
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
        yield name, ast.parse(path.read_text(encoding="utf-8"))


def imports() -> Iterator[tuple[str, str]]:
    """Every (file, imported module) of the package, wherever the import stands but under TYPE_CHECKING."""
    for name, tree in files():
        for node in ast.walk(tree):
            if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
                node.body = []
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                yield from ((name, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                yield from ((name, f"{node.module}.{alias.name}") for alias in node.names)


def inside() -> Iterator[tuple[str, str]]:
    """The imports of the package's own files, by name below it."""
    known = {name for name, _ in files()}
    for importer, module in imports():
        if importer == "__init__" or not module.startswith("absa_edit."):
            continue
        own = module.removeprefix("absa_edit.")
        while own and own not in known:
            own = own.rpartition(".")[0]
        if own and own != importer:
            yield importer, own


def level(name: str) -> int:
    """The layer of a file."""
    fits = [(len(room), n) for n, layer in enumerate(LAYERS) for room in layer if f"{name}.".startswith(f"{room}.")]
    assert fits, f"{name} has no layer"
    return max(fits)[1]


def test_imports_point_down() -> None:
    wrong = [
        f"{importer} imports {module}"
        for importer, module in inside()
        if importer.split(".")[0] != module.split(".")[0] and level(module) >= level(importer)
    ]
    assert not wrong


def test_no_file_imports_itself_by_a_detour() -> None:
    graph: dict[str, set[str]] = {}
    for importer, module in inside():
        graph.setdefault(importer, set()).add(module)
    try:
        order = list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        raise AssertionError(" imports ".join(reversed(error.args[1]))) from None
    assert len(order) > 100


def test_heavy_libraries_stay_in_their_rooms() -> None:
    strays = [
        f"{importer} imports {module}"
        for importer, module in imports()
        if (top := module.split(".")[0]) in HOME and importer.split(".")[0] not in HOME[top]
    ]
    assert not strays


def test_nothing_prints_or_calls_anything_at_import() -> None:
    """What a run says goes to the log; only commands write to standard output, by it or by rich's Console."""
    for name, tree in files():
        quiet = name.split(".")[0] not in ("cli", "commands")
        for node in ast.walk(tree):
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            assert called != "print" and not (quiet and called == "Console"), f"{name} prints"
            assert not (quiet and isinstance(node, ast.Attribute) and ast.unparse(node) == "sys.stdout"), name
        for statement in tree.body:
            assert not (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call)), name


def test_names_of_methods_stand_in_their_own_plug_ins() -> None:
    """Nothing else in the package knows a method by name. (A plan's source may be the localizer `random`, and `probe`
    is one, too.)"""
    homes = {name: METHODS[name].__module__.removeprefix("absa_edit.") for name in METHODS}
    strays = [
        f"{name} names {node.value}"
        for name, tree in files()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and node.value in set(METHODS)
        and METHODS[node.value].__module__ != f"absa_edit.{name}"
        and not (node.value in LOCALIZERS and LOCALIZERS[node.value].__module__ == f"absa_edit.{name}")
    ]
    assert not strays and len(homes) >= 6
