"""Public sets from the Hugging Face hub, within a bounded time."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Mapping
from typing import Any

from absa_edit.data.assemble import assemble
from absa_edit.data.public_sets import PublicSet
from absa_edit.data.readers.tables import aligned, numbered
from absa_edit.errors import DataError
from absa_edit.records import Dataset
from absa_edit.tasks.absc import ABSC

SECONDS = 10.0
"""Most time that one run waits for the hub, all sets together."""

Rows = list[dict[str, Any]]


class Hub:
    """The hub as one run sees it: once it cannot be reached it is not asked again."""

    def __init__(self, environ: Mapping[str, str], seconds: float = SECONDS) -> None:
        self.failures: dict[str, str] = {}
        """Why a set could not be had, by hub id."""
        self._down: str | None = None
        self._left = seconds
        self._sets: dict[str, dict[str, Rows]] = {}
        for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
            if environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE"):
                self._down = f"not asked, {name} is set"

    def read(self, public: PublicSet, *splits: str) -> tuple[Dataset, ...] | None:
        """The splits of `public`; None when they cannot be had, and `failures` says why."""
        if public.hub is None:
            return None
        try:
            if public.hub not in self._sets:
                self._sets[public.hub] = self._fetch(public.hub)
            sets = self._sets[public.hub]
            return tuple(_dataset(sets, public, public.hub, split) for split in splits)
        except DataError as error:
            self.failures[public.hub] = str(error)
            return None

    def _fetch(self, hub_id: str) -> dict[str, Rows]:
        if self._down is not None:
            raise DataError(self._down)
        got: list[dict[str, Rows]] = []
        errors: list[Exception] = []

        def attempt() -> None:
            try:
                got.append(download(hub_id))
            except Exception as error:  # whatever the hub's libraries raise, the run goes on without them
                errors.append(error)

        # A thread, because neither library bounds the whole of its retries, and a hanging connection
        # must not hold up the run; a daemon, so that it does not hold up its end either.
        thread = threading.Thread(target=attempt, daemon=True)
        started = time.monotonic()
        thread.start()
        thread.join(max(self._left, 0.0))
        self._left -= time.monotonic() - started
        if got:
            return got[0]
        if errors:
            first = (str(errors[0]).splitlines() or [""])[0]
            why = f"not to be had ({type(errors[0]).__name__}: {first})"
            if getattr(errors[0], "response", None) is not None:  # the hub answered, and may have the other sets
                raise DataError(why)
            self._down = why
        else:
            self._down = "no answer in time"
        raise DataError(self._down)


def _dataset(sets: dict[str, Rows], public: PublicSet, hub_id: str, split: str) -> Dataset:
    if split not in sets:
        raise DataError(f"no split {split!r} among {', '.join(sets)}")
    text = "\n".join(json.dumps(row, sort_keys=True, default=str) for row in sets[split])
    origin = f"{hub_id}/{split}"
    return assemble(
        aligned(numbered(sets[split]), origin, ABSC),
        origin,
        name=public.name,
        split=split,
        domain=public.domain,
        source="hub",
        sha256={origin: hashlib.sha256(text.encode()).hexdigest()},
        task=ABSC,
    )


def download(hub_id: str) -> dict[str, Rows]:
    """The rows of the set by split, from the hub or its cache."""
    # Both are slow to import, and most runs find their data on disk.
    from huggingface_hub import HfApi

    # One request without retries: without a network this fails at once, `load_dataset` after half a minute.
    HfApi().dataset_info(hub_id, timeout=5)
    from datasets import load_dataset

    return {str(split): rows.to_list() for split, rows in load_dataset(hub_id).items()}
