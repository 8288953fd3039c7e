"""How records are kept on disk: JSON that is checked on reading, safetensors for arrays, JSON lines for predictions.

Every write is atomic: a file is whole or absent.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from absa_edit.errors import RecordError
from absa_edit.records import Part, Role, TokenGrid, Trace, TraceCounts
from absa_edit.results import Prediction

R = TypeVar("R")

ENGINE = 2
"""Version of the arithmetic of traces, fits and scores: raised when results of the same settings change, so that kept
ones are not found again. A release that changes none leaves them be."""
ESTIMATES = 1
"""The same, of traces that are estimated, besides."""


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@cache
def _adapter(kind: type) -> Any:
    """The pydantic adapter of a type. Built once: building costs more than many records take to write."""
    return TypeAdapter(kind)


def to_json(record: object) -> Any:
    """`record` as plain JSON values (lists, dicts, strings, numbers)."""
    kind: Any = type(record)
    return _adapter(kind).dump_python(record, mode="json")


def write_json(value: object, path: Path) -> None:
    """Write a record, or plain JSON values, to `path`."""
    plain = to_json(value) if is_dataclass(value) else value
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(plain, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def load(kind: type[R], path: Path) -> R:
    """The record of type `kind` in the JSON file at `path`, every field checked.

    Raises `RecordError` naming the file and the field when it is not one.
    """
    with _checked(kind, path):
        return cast("R", _adapter(kind).validate_json(path.read_text(encoding="utf-8")))  # type: ignore[arg-type]


def from_json(kind: type[R], plain: object, path: Path) -> R:
    """The record of type `kind` that `to_json` made plain values of. Raises `RecordError` naming `path`, as `load`."""
    with _checked(kind, path):
        return cast("R", _adapter(kind).validate_python(plain))  # type: ignore[arg-type]


@contextmanager
def _checked(kind: type, path: Path) -> Iterator[None]:
    """Raise `RecordError` naming the file and the field where what is read is no record of type `kind`."""
    try:
        yield
    except ValidationError as error:
        where = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors()[:3])
        raise RecordError(f"{path} is not a {kind.__name__}: {where}") from None


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Raise `RecordError`, saying what to do, where what a run keeps at `path`, or beside it, is cut or was changed."""
    try:
        yield
    except (FileNotFoundError, SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        message = f"{type(error).__name__}: {error}".splitlines()[0]
        raise RecordError(
            f"{path}, or what lies beside it, is cut or was changed ({message}); delete it, and it is made again"
        ) from error


def read_kept(path: Path, key: str | None) -> dict[str, Any] | None:
    """What a JSON file holds beside its `key`; None when there is no file, or it was written under another one."""
    if not path.exists():
        return None
    about: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return about if about.pop("key") == key or key is None else None


def load_kept(kind: type[R], path: Path, key: str) -> R | None:
    """The record of type `kind` at `path`, which `save_kept` wrote under the same key; None where there is none."""
    with readable(path):
        kept = read_kept(path, key)
        return None if kept is None else _adapter(kind).validate_python(kept["record"])  # type: ignore[arg-type]


def save_kept(record: object, path: Path, key: str) -> None:
    """Write a record with the key that it is found again by."""
    write_json({"key": key, "record": to_json(record)}, path)


def content_hash(*parts: object) -> str:
    """Sixteen hexadecimal digits that depend on the content of `parts` (records or JSON values)."""
    plain = [asdict(p) if is_dataclass(p) and not isinstance(p, type) else p for p in parts]
    text = json.dumps(plain, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


_ARRAYS = tuple(
    name for stem in ("clean", "corrupted", "restored", "restored_heads") for name in (stem, f"{stem}_margin")
)


def save_trace(trace: Trace, folder: Path, key: str) -> None:
    """Write `trace.safetensors`, then `trace.json` (its presence says that the trace is whole)."""
    (folder / "trace.json").unlink(missing_ok=True)
    with atomic(folder / "trace.safetensors") as temporary:
        save_file({name: np.ascontiguousarray(getattr(trace, name)) for name in _ARRAYS}, temporary)
    about = {f.name: getattr(trace, f.name) for f in fields(trace) if f.name not in _ARRAYS}
    about["counts"] = to_json(trace.counts)
    write_json({"key": key, **about}, folder / "trace.json")


def load_trace(folder: Path, key: str | None = None) -> Trace | None:
    """The trace in `folder`; None when there is none, or it was made with another `key`."""
    with readable(folder / "trace.json"):
        about = read_kept(folder / "trace.json", key)
        if about is None:
            return None
        about["parts"] = tuple(map(Part, about["parts"]))
        about["roles"] = tuple(map(Role, about["roles"]))
        about["counts"] = TraceCounts(**about["counts"])
        for name in ("example_ids", "sentence_ids"):
            about[name] = tuple(about[name])
        about["exact_cells"] = tuple(map(tuple, about["exact_cells"]))
        about |= load_file(folder / "trace.safetensors")
        return Trace(**about)


def save_token_grids(grids: tuple[TokenGrid, ...], folder: Path, key: str) -> None:
    """Write `tokens.safetensors`, an array an example, then `tokens.json` (its presence says that all are there)."""
    (folder / "tokens.json").unlink(missing_ok=True)
    with atomic(folder / "tokens.safetensors") as temporary:
        save_file({grid.id: np.ascontiguousarray(grid.restored) for grid in grids}, temporary)
    plain = [{f.name: getattr(g, f.name) for f in fields(g) if f.name != "restored"} for g in grids]
    write_json({"key": key, "grids": plain}, folder / "tokens.json")


def load_token_grids(folder: Path, key: str | None = None) -> tuple[TokenGrid, ...] | None:
    """The grids in `folder`; None when there are none, or they were made with another `key`."""
    with readable(folder / "tokens.json"):
        about = read_kept(folder / "tokens.json", key)
        if about is None:
            return None
        arrays = load_file(folder / "tokens.safetensors")
        grids = []
        for row in about["grids"]:
            row |= {"tokens": tuple(row["tokens"]), "roles": tuple(map(Role, row["roles"]))}
            grids.append(TokenGrid(**row | {"parts": tuple(map(Part, row["parts"])), "restored": arrays[row["id"]]}))
        return tuple(grids)


def save_predictions(predictions: tuple[Prediction, ...], path: Path) -> None:
    """Write one JSON object a line."""
    with atomic(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for row in predictions:
            file.write(json.dumps(to_json(row), ensure_ascii=False) + "\n")


def load_predictions(path: Path) -> tuple[Prediction, ...]:
    """The rows of a `predictions.jsonl`.

    Raises `RecordError` naming the line that is none.
    """
    adapter = _adapter(Prediction)
    rows = []
    lines = path.read_text(encoding="utf-8").split("\n")  # splitlines would also split inside a text
    for number, line in enumerate(lines if lines[-1] else lines[:-1], 1):
        try:
            rows.append(adapter.validate_json(line))
        except ValidationError as error:
            what = error.errors()[0]["msg"]
            raise RecordError(
                f"{path}, line {number} is not a prediction: {what}; delete record.json beside it and run again"
            ) from None
    return tuple(rows)
