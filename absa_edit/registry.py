"""Plug-ins by name: a decorator puts them in, a wrong name is answered with those there are and the nearest."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Generic, TypeVar

from absa_edit.errors import SettingsError

P = TypeVar("P")


class Registry(Generic[P]):
    """The plug-ins of one kind; called with a name, a decorator. Iterates over the names, in order of definition.

    The package's own are the files of `room`, which are imported when a plug-in is first asked for.
    """

    def __init__(self, kind: str, room: str) -> None:
        self.kind = kind
        """What one is called in messages: `localizer`, `method`, ..."""
        self._room = room
        self._found: dict[str, P] = {}
        self._loaded = False

    def __call__(self, name: str) -> Callable[[P], P]:
        """A decorator that registers a plug-in; one that is defined again takes the place of its former self.

        Raises `SettingsError` when another plug-in has the name.
        """

        def register(plugin: P) -> P:
            known = self._found.get(name)
            if known is not None and _origin(known) != _origin(plugin):
                raise SettingsError(f"{self.kind} {name!r} is defined twice: in {_origin(known)} and {_origin(plugin)}")
            self._found[name] = plugin
            return plugin

        return register

    def __getitem__(self, name: str) -> P:
        """The plug-in called `name`. Raises `SettingsError` when there is none."""
        self._load()
        if name not in self._found:
            near = difflib.get_close_matches(name, self._found, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise SettingsError(f"no {self.kind} is called {name!r}.{hint} There are {', '.join(sorted(self._found))}")
        return self._found[name]

    def __iter__(self) -> Iterator[str]:
        self._load()
        return iter(tuple(self._found))

    def __contains__(self, name: object) -> bool:
        self._load()
        return name in self._found

    def _load(self) -> None:
        if self._loaded:
            return
        self._loaded = True
        package = importlib.import_module(self._room)
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{self._room}.{module.name}")


def load_plugins(files: Iterable[str]) -> None:
    """Run Python files that register plug-ins. Raises `SettingsError` for one that is not there or breaks."""
    for file in map(Path, files):
        if not file.is_file():
            raise SettingsError(f"plugins={file}: no such file; give a Python file that registers plug-ins")
        spec = importlib.util.spec_from_file_location(file.stem, file)
        if spec is None or spec.loader is None:
            raise SettingsError(f"plugins={file}: not a Python file; its name has to end in .py")
        module = sys.modules[file.stem] = importlib.util.module_from_spec(spec)  # dataclasses look their module up
        try:
            spec.loader.exec_module(module)
        except SettingsError:
            raise
        except Exception as error:
            message = f"{type(error).__name__}: {error}".splitlines()[0]
            raise SettingsError(f"plugins={file}: it cannot be run ({message})") from error


def _origin(plugin: Any) -> str:
    """Where a plug-in is defined."""
    kind = plugin if hasattr(plugin, "__qualname__") else type(plugin)
    return f"{kind.__module__}.{kind.__qualname__}"
