"""Where a run's results go: `<output>/<experiment>[-<what the command line changed>-<hash>]/<model>/seed<k>`.

Every part is of letters, digits, dots, dashes and underscores, so that the path can be pasted into a command line.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from absa_edit.errors import SettingsError
from absa_edit.model.known import is_named
from absa_edit.settings import Settings
from absa_edit.storage import content_hash

NOT_IN_NAME = ("hydra", "track", "export", "output", "name", "seed", "experiment", "stages")
"""Groups, with all their keys, that a run folder's name leaves out: they have a place in the path, or change no
result."""
KEYS_NOT_IN_NAME = ("model", "model.name", "data.path", "trace.batch_tokens")
"""Keys that it leaves out for the same reasons."""
LONGEST = 60
"""Characters of one part of the path."""
HASH = 8
"""Hexadecimal digits of the hash that tells two parts apart whose readable stems are alike."""


def experiment_name(settings: Settings, trained_on: str, overrides: Sequence[str] = ()) -> str:
    """The name that a run's results go by, which is the first part of its path.

    `trained_on` is the data that was found: a bundled sample is never called by the public set's name. What the command
    line changed (`overrides`) is told after it, and in the hash that ends it.
    """
    name, requested = settings.name, settings.data.name
    if trained_on != requested:
        name = name.replace(requested, trained_on) if requested in name else f"{name}-{trained_on}"
    changed = changes(overrides)
    if not changed:
        return path_part(name)
    return _with_hash("-".join([name, *changed]), content_hash(name, changed))


def run_folder(settings: Settings, experiment: str, model: str) -> Path:
    """The folder of a run; models of the same name in different folders have different ones."""
    local = Path(settings.model.name)
    from_folder = not is_named(settings.model.name) and local.exists()
    part = _with_hash(model, content_hash(str(local.resolve()))) if from_folder else path_part(model)
    return Path(settings.output) / experiment / part / f"seed{settings.seed}"


def changes(overrides: Sequence[str]) -> list[str]:
    """The overrides that name a variant, sorted by key; of a key that is given twice the last counts, as in Hydra."""
    last = {}
    for override in (o.lstrip("+") for o in overrides):
        key = re.split(r"[=@]", override)[0]
        if re.split(r"[./]", key.lstrip("~"))[0] not in NOT_IN_NAME and key not in KEYS_NOT_IN_NAME:
            last[key] = override
    return [last[key] for key in sorted(last)]


def path_part(name: str) -> str:
    """`name` as one part of a path; one that has to be changed for it ends in a hash, so that two names stay two."""
    return name if name and name == _plain(name) and len(name) <= LONGEST else _with_hash(name, content_hash(name))


def _with_hash(name: str, digits: str) -> str:
    stem = _plain(name)[: LONGEST - HASH - 1].rstrip("-.")
    return f"{stem}-{digits[:HASH]}".lstrip("-")


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", re.sub(r"[\[\]{}'\"]", "", name)).strip("-.")


def check_output(settings: Settings) -> None:
    """Raise `SettingsError` where nothing can be written to the output folder; it is made where it does not exist."""
    folder = Path(settings.output)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        why = "it is a file" if folder.is_file() else error.strerror or type(error).__name__
        raise SettingsError(
            f"output={settings.output}: expected a folder that can be written to ({why}); give another output=FOLDER"
        ) from None
