"""Loops over millions of rows run as machine code; over few they run as the Python that they are.

Compiling needs numba, whose import alone takes as long as analysing a small trace. What was compiled is kept
beside the source (numba's own cache), so that it happens once per machine: `make` does it ahead of time.
Without numba the loops are right and slow.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from importlib.util import find_spec
from typing import TypeVar, cast

Loop = TypeVar("Loop", bound=Callable)

_WORTH_COMPILING = 20_000  # rows: from here on machine code is faster, its import included


def pays(rows: int) -> bool:
    """Whether a loop over this many rows runs as machine code."""
    return rows >= _WORTH_COMPILING and find_spec("numba") is not None


def loop_for(function: Loop, rows: int) -> Loop:
    """`function`, compiled if it is going to loop over this many rows.

    It has to be self-contained: scalars and NumPy arrays in and out, no calls of other Python functions.
    """
    return _compile(function) if pays(rows) else function


@lru_cache
def _compile(function: Loop) -> Loop:
    import numba

    return cast(Loop, numba.njit(function, cache=True, nogil=True))
