"""Public sets, brought into a data folder: from the network, or from what a user downloaded."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import urllib.request
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from absa_edit.data.hub import Rows, download
from absa_edit.data.public_sets import Counts, PublicSet, fetched
from absa_edit.data.readers.base import read
from absa_edit.errors import DataError
from absa_edit.tasks.absc import ABSC

T = TypeVar("T")

SPLITS = ("train", "test")
SECONDS = 60
"""Most time between two pieces of an answer of the authors' site."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """A file that now lies in the data folder."""

    path: Path
    origin: str
    counts: Counts
    sha256: str
    known: bool | None
    """Whether it is byte for byte the copy that this project was tested with; None where no hash is known."""


@dataclass(frozen=True, slots=True)
class _File:
    """A file before it is put anywhere: where it goes, where it comes from, and its bytes."""

    to: str
    origin: str
    content: bytes


def fetch(public: PublicSet, out: Path, sources: Sequence[Path] = ()) -> list[Fetched]:
    """Bring both splits of `public` into the folder `out`, from the folders and zip files `sources` or the network.

    Files are read and counted before any is put in place, so `out` gets both or neither. Raises `DataError` when
    a file is not found, is not the set that its name says, or would replace a different file.
    """
    files = [_downloaded(public, split, sources) for split in SPLITS] if sources else _from_network(public)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".fetch-") as folder:
        done = [_checked(public, split, file, Path(folder), out) for split, file in zip(SPLITS, files, strict=True)]
        for file in files:
            (out / file.to).parent.mkdir(parents=True, exist_ok=True)
            shutil.move(Path(folder) / file.to, out / file.to)
    return done


def _checked(public: PublicSet, split: str, file: _File, folder: Path, out: Path) -> Fetched:
    """The file as it will lie in `out`, written to `folder`, read back and counted."""
    target, sha256 = out / file.to, hashlib.sha256(file.content).hexdigest()
    if target.exists() and hashlib.sha256(target.read_bytes()).hexdigest() != sha256:
        raise DataError(
            f"{target} is there already and differs from {file.origin}. Remove it, or choose another --out."
        )
    path = folder / file.to
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(file.content)
    try:
        dataset = read(path, name=public.name, split=split, domain=public.domain, task=ABSC)
        public.check(dataset, file.origin)
    except DataError as error:
        raise DataError(str(error).replace(str(path), file.origin)) from None
    positive, negative, neutral = dataset.counts().values()
    counts = positive, negative, neutral
    known = public.sha256.get(path.name)
    return Fetched(target, file.origin, counts, sha256, None if known is None else known == sha256)


def _from_network(public: PublicSet) -> list[_File]:
    if public.hub:
        sets = _asked(public, f"the hub's {public.hub}", lambda: download(str(public.hub)))
        missing = [split for split in SPLITS if split not in sets]
        if missing:
            raise DataError(f"the hub's {public.hub} has no split {missing[0]!r} among {', '.join(sets)}.")
        return [
            _File(fetched(public.name, split), f"hub {public.hub}/{split}", _json_lines(sets[split]))
            for split in SPLITS
        ]
    if public.web:
        return [_from_web(public, public.candidates(split)) for split in SPLITS]
    raise DataError(
        f"{public.name} is published neither on the hub nor as single files. Download it, then "
        f"absa-edit data fetch {public.name} --from FOLDER_OR_ZIP"
    )


def _json_lines(rows: Rows) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def _from_web(public: PublicSet, candidates: tuple[str, ...]) -> _File:
    address = f"{public.web}{candidates[-1]}"

    def get() -> bytes:
        with urllib.request.urlopen(address, timeout=SECONDS) as answer:
            content: bytes = answer.read()
        return content

    return _File(candidates[0], address, _asked(public, address, get))


def _asked(public: PublicSet, what: str, get: Callable[[], T]) -> T:
    """What `get` gives. Whatever the network and the hub's libraries raise becomes a `DataError`."""
    try:
        return get()
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0]
        raise DataError(
            f"{what} could not be had ({type(error).__name__}: {reason}). Download {public.name} some other way, then "
            f"absa-edit data fetch {public.name} --from FOLDER_OR_ZIP"
        ) from None


def _downloaded(public: PublicSet, split: str, sources: Sequence[Path]) -> _File:
    """The split's file in what the user downloaded: found by the last parts of the usual path."""
    candidates = public.candidates(split)
    members = [member for source in sources for member in _members(source)]
    for wanted in dict.fromkeys((*candidates[1:-1], *(c.rsplit("/", 1)[-1] for c in candidates))):
        matches = [m for m in members if f"/{m.name}".lower().endswith(f"/{wanted}".lower())]
        if len(matches) > 1:
            raise DataError(
                f"{public.name}: {wanted} is there {len(matches)} times: {', '.join(m.origin for m in matches)}. "
                "Give the folder that holds the one you mean."
            )
        if matches:
            return _File(_place(candidates, wanted), matches[0].origin, matches[0].content())
    raise DataError(
        f"{public.name}: no {candidates[-1]} in {', '.join(map(str, sources))}. "
        f"Give the folders or zip files that hold the {' and the '.join(SPLITS)} file; --from takes several."
    )


def _place(candidates: tuple[str, ...], wanted: str) -> str:
    """The usual path, or the first with the suffix of the file that was found."""
    return next(c for c in candidates if c.endswith(Path(wanted).suffix))


@dataclass(frozen=True, slots=True)
class _Member:
    """A file of a folder or zip; `name` is its path inside."""

    name: str
    origin: str
    content: Callable[[], bytes]


def _members(source: Path) -> Iterator[_Member]:
    source = source.expanduser()
    if source.is_dir():
        for path in sorted(p for p in source.rglob("*") if p.is_file()):
            yield _Member(path.relative_to(source.parent).as_posix(), str(path), path.read_bytes)
    elif zipfile.is_zipfile(source):
        with zipfile.ZipFile(source) as archive:
            names = [info.filename for info in archive.infolist() if not info.is_dir()]
        for name in names:
            yield _Member(name, f"{source}, {name}", partial(_unzipped, source, name))
    elif source.is_file():
        yield _Member(source.name, str(source), source.read_bytes)
    else:
        raise DataError(f"{source}: no such folder or file. Give what you downloaded, a folder or a zip file.")


def _unzipped(source: Path, name: str) -> bytes:
    with zipfile.ZipFile(source) as archive:
        return archive.read(name)
