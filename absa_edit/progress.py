"""How a stage tells how far it is, without knowing of terminals."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar, runtime_checkable

T = TypeVar("T")


@runtime_checkable
class Progress(Protocol):
    """Passes items on and shows the count.

    `total` is needed where the iterable has no length; `unit` is what an item is called.
    """

    def __call__(
        self, items: Iterable[T], name: str, total: int | None = None, *, unit: str = "batch"
    ) -> Iterable[T]: ...


def silent(items: Iterable[T], name: str, total: int | None = None, *, unit: str = "batch") -> Iterator[T]:
    """The items, with nothing shown."""
    yield from items
