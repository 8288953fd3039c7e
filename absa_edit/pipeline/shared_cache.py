"""Results that runs share by content: `<output>/cache/<kind>/<key>/`, safe to delete at any time.

What a run uses is copied into its own folder, which stays whole without the cache. So a sweep over learning rates
traces once.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from absa_edit.context import Context
from absa_edit.storage import atomic


def shared_folder(ctx: Context, kind: str, key: str) -> Path:
    """Where results of a kind lie that depend on what `key` is the hash of."""
    return Path(ctx.settings.output) / "cache" / kind / key


def fetch(ctx: Context, kind: str, key: str, into: Path, names: Iterable[str]) -> bool:
    """Copy what an earlier run shared into a folder of this one, the last name last; whether there was something."""
    shared = shared_folder(ctx, kind, key)
    if not all((shared / name).is_file() for name in names):
        return False
    _copy(shared, into, names)
    return True


def share(ctx: Context, kind: str, key: str, out_of: Path, names: Iterable[str]) -> None:
    """Let later runs have files of this one; the last name, written last, says that all are there."""
    _copy(out_of, shared_folder(ctx, kind, key), names)


def _copy(source: Path, target: Path, names: Iterable[str]) -> None:
    for name in names:
        with atomic(target / name) as temporary:
            shutil.copyfile(source / name, temporary)
