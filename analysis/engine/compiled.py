"""Loops over millions of rows run as machine code; over few they run as the Python that they are.

Compiling needs numba, whose import alone takes as long as analysing a small trace. What was compiled is kept
beside the source (numba's own cache), so that it happens once per machine: `make` does it ahead of time.
Without numba the loops are right and slow.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import lru_cache
from importlib.util import find_spec
from threading import Lock
from typing import TypeVar, cast

Loop = TypeVar("Loop", bound=Callable)

_ONE_AT_A_TIME = Lock()
_WORTH_IMPORTING = 20_000  # rows: from here on machine code is faster, numba's import included
_WORTH_CALLING = 2_000  # the same once it is there


def pays(rows: int) -> bool:
    """Whether a loop over this many rows runs as machine code."""
    if "numba" in sys.modules:
        return rows >= _WORTH_CALLING
    return rows >= _WORTH_IMPORTING and find_spec("numba") is not None


def loop_for(function: Loop, rows: int) -> Loop:
    """`function`, compiled if it is going to loop over this many rows.

    It has to be self-contained: scalars and NumPy arrays in and out, no calls of other Python functions.
    """
    if not pays(rows):
        return function
    with _ONE_AT_A_TIME:
        return _compile(function)


@lru_cache
def _compile(function: Loop) -> Loop:
    import numba

    return cast(Loop, numba.njit(function, cache=True, nogil=True))
