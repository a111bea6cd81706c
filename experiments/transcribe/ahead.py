"""Threads that read ahead, so that whoever decodes finds the next windows in memory.

libsndfile, soxr and numpy let go of Python's lock while they work, so threads are enough.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

import nvtx

T = TypeVar("T")
LOOK_S = 0.1  # how often a thread that waits for room looks whether it is still needed
END_S = 5.0  # until threads end that nobody needs; one that hangs in a read is left behind


@dataclass(frozen=True)
class _Problem:
    error: BaseException


class _Finished:
    """A thread's last item."""


def ahead(items: Iterator[T], depth: int) -> Iterator[T]:
    """`items`, of which a thread keeps up to `depth` ready."""
    return gathered([lambda: items], threads=1, depth=depth)


def gathered(sources: Iterable[Callable[[], Iterator[T]]], threads: int, depth: int) -> Iterator[T]:
    """The items of all sources as they come: each source is read by one of `threads`, `depth` items are kept.

    What a source raises is raised here. Closing the iterator waits until the threads have ended.
    """
    hall = _Hall[T](sources, depth)
    workers = [threading.Thread(target=hall.work, daemon=True) for _ in range(threads)]
    for worker in workers:
        worker.start()
    try:
        running = threads
        while running:
            item = hall.items.get()
            if isinstance(item, _Finished):
                running -= 1
            elif isinstance(item, _Problem):
                raise item.error
            else:
                yield item
    finally:
        hall.closed.set()
        # One that still resamples while Python exits would have its library complain of leaks.
        for worker in workers:
            worker.join(END_S)


def _marked(items: Iterator[T]) -> Iterator[T]:
    """`items`; in a trace, the reading of each is a range in its thread."""
    while True:
        with nvtx.annotate("read", domain="transcribe"):
            try:
                item = next(items)
            except StopIteration:
                return
        yield item


class _Hall(Generic[T]):
    """What the threads share."""

    def __init__(self, sources: Iterable[Callable[[], Iterator[T]]], depth: int) -> None:
        self.items: queue.Queue[T | _Problem | _Finished] = queue.Queue(depth)
        self.closed = threading.Event()
        self._sources = iter(sources)
        self._lock = threading.Lock()

    def work(self) -> None:
        """One thread: source after source until there are none."""
        try:
            while (source := self._next()) is not None:
                for item in _marked(source()):
                    if not self._put(item):
                        return
            self._put(_Finished())
        except BaseException as error:
            self._put(_Problem(error))

    def _next(self) -> Callable[[], Iterator[T]] | None:
        with self._lock:
            return next(self._sources, None)

    def _put(self, item: T | _Problem | _Finished) -> bool:
        """False if nobody wants it any more."""
        while not self.closed.is_set():
            try:
                self.items.put(item, timeout=LOOK_S)
            except queue.Full:
                continue
            return True
        return False
