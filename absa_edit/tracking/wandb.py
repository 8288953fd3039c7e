"""Where curves, tables and adapters go besides the run folder: Weights & Biases, or nowhere.

wandb is imported only when it is asked for, and runs offline unless there is a login; it never asks for one.
"""

from __future__ import annotations

import logging
import netrc
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol, runtime_checkable
from urllib.parse import urlsplit

from absa_edit.errors import SettingsError
from absa_edit.storage import content_hash
from absa_edit.tracking.settings import Tracker as Kind
from absa_edit.tracking.settings import TrackSettings

log = logging.getLogger(__name__)

OWN_HOSTS = ("api.wandb.ai", "api.forge.coreweave.com")
"""Where wandb itself is, by its old name and its new one: a key that was kept under one is taken for both."""

Value = str | int | float | bool | None


@runtime_checkable
class Tracker(Protocol):
    """What a stage can hand over while a run is open; nothing that it does changes a result."""

    def log(self, metrics: Mapping[str, int | float], step: int | None = None) -> None:
        """Add a point to the curves; names are `namespace/metric`."""

    def summary(self, values: Mapping[str, Value]) -> None:
        """Set final figures of the run."""

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Value]]) -> None:
        """Add a table that can be sorted and joined with those of other runs."""

    def image(self, name: str, path: Path) -> None:
        """Add a figure."""

    def artifact(self, name: str, kind: str, folder: Path) -> None:
        """Keep the files of `folder` as a version of the artifact `name`."""


class NullTracker:
    """The tracker that keeps nothing."""

    def log(self, metrics: Mapping[str, int | float], step: int | None = None) -> None: ...

    def summary(self, values: Mapping[str, Value]) -> None: ...

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Value]]) -> None: ...

    def image(self, name: str, path: Path) -> None: ...

    def artifact(self, name: str, kind: str, folder: Path) -> None: ...


class WandbTracker:
    """A tracker on one open wandb run."""

    def __init__(self, wandb: Any, run: Any) -> None:
        self._wandb, self._run = wandb, run

    def log(self, metrics: Mapping[str, int | float], step: int | None = None) -> None:
        self._run.log(dict(metrics), step=step)

    def summary(self, values: Mapping[str, Value]) -> None:
        self._run.summary.update(dict(values))

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Value]]) -> None:
        data = [list(row) for row in rows]
        self._run.log({name: self._wandb.Table(columns=list(columns), data=data)})

    def image(self, name: str, path: Path) -> None:
        self._run.log({name: self._wandb.Image(str(path))})

    def artifact(self, name: str, kind: str, folder: Path) -> None:
        kept = self._wandb.Artifact(artifact_name(name), type=kind)
        for file in sorted(folder.rglob("*")):  # `add_dir` would talk on the terminal
            if file.is_file():
                kept.add_file(str(file), name=file.relative_to(folder).as_posix())
        self._run.log_artifact(kept)


def artifact_name(name: str) -> str:
    """`name` in what wandb takes: 128 letters, digits, dots, dashes; a hash stands for what that leaves out."""
    plain = re.sub(r"[^\w.-]", "-", name, flags=re.ASCII)
    return plain if name.isascii() and len(plain) <= 128 else f"{plain[:111]}-{content_hash(name)}"


@contextmanager
def track(
    settings: TrackSettings,
    *,
    group: str,
    name: str,
    job_type: str,
    config: Mapping[str, Any],
    tags: Sequence[str] = (),
    folder: Path,
) -> Iterator[Tracker]:
    """A tracker for one run, closed when the block ends and marked failed when it ends in an error.

    `group` holds everything but the seed, `name` the method and the seed, `job_type` is trace, fit or
    compare; all files go to `folder/wandb`. Only the first of several processes tracks.
    Raises `SettingsError` when wandb is asked for and not installed, or online and not logged in.
    """
    if settings.kind is Kind.none or int(os.environ.get("RANK", "0")):
        yield NullTracker()
        return
    wandb = _import_wandb()
    about = {"group": group, "name": name, "job_type": job_type, "config": dict(config)}
    about["tags"] = [tag[:64] for tag in tags]  # wandb refuses longer ones
    with _files_under(folder), _start(wandb, settings, folder, about) as run:
        yield WandbTracker(wandb, run)


def check_tracking(settings: TrackSettings) -> None:
    """Raise the `SettingsError` that `track` would raise, before anything is loaded."""
    if settings.kind is Kind.none or int(os.environ.get("RANK", "0")):
        return
    wandb = _import_wandb()
    if os.environ.get("WANDB_MODE") == "online" and not logged_in():  # but there may be a server of one's own
        with TemporaryDirectory() as folder, _files_under(Path(folder)):
            _mode(wandb.setup(wandb.Settings(silent=True)).settings)
            wandb.teardown()


def _import_wandb() -> Any:
    try:
        import wandb
    except ImportError:
        wandb = None  # type: ignore[assignment]
    # A folder `wandb/` of earlier runs in the working directory imports as an empty namespace package.
    if not hasattr(wandb, "init"):
        raise SettingsError("track=wandb needs wandb, which is not installed: `pip install wandb` or `track=none`")
    return wandb


def _start(wandb: Any, settings: TrackSettings, folder: Path, about: Mapping[str, Any]) -> Any:
    known = wandb.setup(wandb.Settings(silent=True)).settings  # of the environment and wandb's own settings files
    quiet = wandb.Settings(silent=True, console="off", reinit="create_new")
    place = {"project": settings.project, "entity": settings.entity, "dir": str(folder)}
    try:
        return wandb.init(**place, **about, mode=_mode(known), settings=quiet)
    except wandb.errors.CommError as error:
        log.warning("wandb cannot be reached (%s): tracking offline, `wandb sync` uploads it later", error)
        return wandb.init(**place, **about, mode="offline", settings=quiet)


def _mode(known: Any) -> str:
    """WANDB_MODE where it is set, else what `wandb offline` left; else online with a login and offline without one."""
    requested, has_login = os.environ.get("WANDB_MODE"), logged_in(known.base_url)
    if requested == "online" and not has_login:
        raise SettingsError(
            "WANDB_MODE=online, but there is no login: run `wandb login`, set WANDB_API_KEY, or track=none"
        )
    left = None if known.mode == "online" else known.mode  # which is what it is when nobody said anything
    return requested or left or ("online" if has_login else "offline")


def logged_in(base_url: str = f"https://{OWN_HOSTS[0]}") -> bool:
    """Whether wandb would find a key without asking: in the environment, or in the netrc file."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", base_url)).netloc
    hosts = OWN_HOSTS if host in OWN_HOSTS else (host,)
    named = os.environ.get("NETRC")
    files = [Path(named)] if named else [Path.home() / ".netrc", Path.home() / "_netrc"]
    for file in files:
        try:
            if any(map(netrc.netrc(file).authenticators, hosts)):
                return True
        except (OSError, netrc.NetrcParseError):
            continue
    return False


@contextmanager
def _files_under(folder: Path) -> Iterator[None]:
    """Send wandb's caches to `folder/wandb` for the block, unless the user has or chose a place for them."""
    folder.mkdir(parents=True, exist_ok=True)
    places = {"WANDB_CACHE_DIR": ".cache", "WANDB_DATA_DIR": ".data"}
    if not (Path.home() / ".config" / "wandb").exists():  # what `wandb offline` and `wandb login --host` write to
        places["WANDB_CONFIG_DIR"] = ".config"
    ours = {key: str(folder / "wandb" / name) for key, name in places.items() if key not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for key in ours:
            os.environ.pop(key, None)
