"""A trace that is not whole yet: its finished examples, on disk as JSON lines, so that a stopped trace goes on."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from absa_edit.records import Part
from absa_edit.storage import atomic, readable


@dataclass(frozen=True)
class Traced:
    """One example's trace, as a line of the file that a stopped trace goes on from."""

    id: str
    note: str | None
    """Why the paper's filter leaves the example out; None for one that passes."""
    clean: tuple[float, float]
    """Probability and margin, as everywhere below."""
    corrupted: tuple[float, float] | None
    """None where the clean run was wrong and nothing more was run."""
    restored: dict[str, list[object]] | None
    """By part: [measure][role][layer], for head [measure][role][layer][head]; None in place of roles that the example
    lacks. None as a whole when the filter stopped it."""


def plain(grids: dict[Part, np.ndarray]) -> dict[str, list[object]]:
    """Nested lists with None for nan, as JSON has none."""
    return {p.value: np.where(np.isnan(g), None, g).tolist() for p, g in grids.items()}  # type: ignore[call-overload]


class TraceLog:
    """The finished examples of a trace that is not whole yet; without a path, nothing is kept."""

    def __init__(self, path: Path | None, key: str) -> None:
        self.path = path
        self.found: dict[str, Traced] = {}
        self.seconds = 0.0
        head = json.dumps({"key": key})
        if path is None:
            return
        kept = [head]
        with readable(path):
            lines = path.read_text(encoding="utf-8").split("\n") if path.exists() else []
            if lines[:1] == kept:
                kept += lines[1:-1]  # the last one is empty, or cut short
            for line in kept[1:]:
                row = json.loads(line)
                self.seconds = row.pop("seconds")
                both = {name: row[name] and tuple(row[name]) for name in ("clean", "corrupted")}
                self.found[row["id"]] = Traced(**row | both)
        with atomic(path) as temporary:
            temporary.write_text("\n".join([*kept, ""]), encoding="utf-8")

    def add(self, traced: Traced, seconds: float) -> None:
        """Append one example; a run that is killed after this has it."""
        if self.path:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({**asdict(traced), "seconds": seconds}) + "\n")

    def remove(self) -> None:
        """Delete the file: the trace is whole."""
        if self.path:
            self.path.unlink(missing_ok=True)
