"""Bounded, thread-safe memories for what was traced and compiled."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import RLock
from typing import Any, Generic, TypeVar

from .structure import Same

V = TypeVar("V")


class Memory(Generic[V]):
    """A mapping that makes missing values and forgets the one that was not asked for the longest."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._lock = RLock()
        self._values: OrderedDict[Hashable, V] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], V]) -> V:
        """The value of `key`; two threads that ask at once get the same one, so `make` must be cheap."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
            else:
                self._values[key] = make()
                if len(self._values) > self._size:
                    self._values.popitem(last=False)
            return self._values[key]

    def __len__(self) -> int:
        return len(self._values)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._values.clear()


def by_value(thing: Any) -> Hashable:
    """`thing` as a key: by value where it can be hashed, else by identity."""
    try:
        hash(thing)
    except TypeError:
        return Same(thing)
    return type(thing), thing
