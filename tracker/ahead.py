"""Work on a stream's next items in a thread of its own, while the present ones are looked at."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Generic, TypeVar

_Item = TypeVar("_Item")

_POLL = 0.1
"""Seconds after which a thread that waits for room looks whether anybody still wants its items."""


class _End:
    """How a stream ended: by an error, to be raised where the items are taken, or by itself."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


class Ahead(Generic[_Item]):
    """An iterator over the items of another one, which runs in a thread, a few items ahead. Use it as a context manager.

    Order, number and errors are those of the other one: what it raises is raised here, after the items before it. The thread
    starts when the first item is asked for.

    Args:
        items: what is iterated over, in the thread alone.
        size: how many finished items wait at most; one more may be in the making.
        name: of the thread.
    """

    def __init__(self, items: Iterable[_Item], size: int, name: str) -> None:
        self._items = items
        self._queue: queue.Queue[_Item | _End] = queue.Queue(size)
        self._closed = threading.Event()
        self._name = name
        self._thread: threading.Thread | None = None
        self._finished = False

    def __iter__(self) -> Iterator[_Item]:
        return self

    def __next__(self) -> _Item:
        if self._finished or self._closed.is_set():
            raise StopIteration
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        item = self._queue.get()
        if not isinstance(item, _End):
            return item
        self._finished = True
        if item.error is None:
            raise StopIteration
        raise item.error

    def _run(self) -> None:
        end = _End(None)
        try:
            for item in self._items:
                if not self._put(item):
                    return
        except BaseException as error:  # handed to the thread that takes the items, where it can be caught
            end = _End(error)
        self._put(end)

    def _put(self, item: _Item | _End) -> bool:
        while not self._closed.is_set():
            try:
                self._queue.put(item, timeout=_POLL)
                return True
            except queue.Full:
                continue
        return False

    def close(self) -> None:
        """Want no more items, and wait until the thread has ended; further iteration ends at once."""
        self._closed.set()
        if self._thread is not None:
            self._thread.join()

    def __enter__(self) -> Ahead[_Item]:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
