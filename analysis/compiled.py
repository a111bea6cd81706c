"""Loops over millions of rows run as machine code; over few they run as the Python that they are.

Compiling needs numba, whose import alone takes as long as analysing a small trace. What was compiled is kept
beside the source (numba's own cache), so that it happens once per machine; `python -m analysis.compiled`
does it ahead of time.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TypeVar, cast

Loop = TypeVar("Loop", bound=Callable)

WORTH_COMPILING = 20_000  # rows: from here on machine code is faster, its import included


def loop_for(function: Loop, rows: int) -> Loop:
    """`function`, compiled if it is going to loop over this many rows.

    It has to be self-contained: scalars and NumPy arrays in and out, no calls of other Python functions.
    """
    return function if rows < WORTH_COMPILING else _compile(function)


@lru_cache
def _compile(function: Loop) -> Loop:
    import numba

    return cast(Loop, numba.njit(function, cache=True, nogil=True))
