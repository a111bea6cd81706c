"""Threads for the parts of one table: NumPy and compiled loops run without the interpreter's lock."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

Part = TypeVar("Part")
Result = TypeVar("Result")

_MOST = 4  # more of them would wait for the interpreter


def threads() -> int:
    """How many threads are worth while here."""
    return min(len(os.sched_getaffinity(0)), _MOST)


def in_threads(function: Callable[[Part], Result], parts: Iterable[Part]) -> list[Result]:
    """function(part) of each part, in their order."""
    with ThreadPoolExecutor(threads()) as workers:
        return list(workers.map(function, parts))


def at_once(*jobs: Callable[[], Any]) -> list[Any]:
    """What each of these jobs returns."""
    return in_threads(lambda job: job(), jobs)
