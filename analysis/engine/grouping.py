"""One small integer for each distinct combination of integers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.engine.intervals import Ints

Codes = npt.NDArray[np.int32]

BLOCK_ROWS = 1 << 16
_OFTEN_KEPT_BYTES = 1 << 24
_NEVER_KEPT_BYTES = 1 << 26


def blocks(rows: int, size: int = BLOCK_ROWS) -> Iterator[slice]:
    """Slices that cover this many rows: what is computed block by block takes no memory in proportion."""
    return (slice(first, min(first + size, rows)) for first in range(0, rows, size))


def strictly_ascending(column: npt.NDArray[np.integer]) -> bool:
    """Whether each value is larger than the one before."""
    return all(bool((column[1:][block] > column[:-1][block]).all()) for block in blocks(len(column) - 1))


def zero_column(rows: int, dtype: npt.DTypeLike) -> np.ndarray:
    """Zeros. A large column takes memory only where something is written, and none once it is gone: glibc
    keeps up to 64 MiB of what was freed to use it again, in each thread's own arena; more it maps apart."""
    size = np.dtype(dtype).itemsize
    room = _NEVER_KEPT_BYTES // size if rows * size > _OFTEN_KEPT_BYTES else 0
    return np.zeros(max(rows, room), dtype=dtype)[:rows]


def picked(values: np.ndarray, rows: npt.NDArray[np.integer]) -> np.ndarray:
    """values[rows], without the copy of `rows` in 64 bits that NumPy makes."""
    found = zero_column(len(rows), values.dtype)
    for block in blocks(len(rows)):
        found[block] = values[rows[block]]
    return found


def runs(column: npt.NDArray[np.integer]) -> tuple[npt.NDArray[np.integer], Ints]:
    """The distinct values of an ascending column, and where each begins; the column's length comes last."""
    first = np.append(np.flatnonzero(np.diff(column, prepend=column[:1] - 1)), len(column))
    return column[first[:-1]], first


def tally(codes: npt.NDArray[np.integer], groups: int, mask: npt.NDArray[np.bool_] | None = None) -> Ints:
    """How many rows (of those in `mask`) have each code: shape [groups]."""
    count = np.zeros(groups, dtype=np.int64)
    for block in blocks(len(codes), max(BLOCK_ROWS, groups)):
        part = codes[block] if mask is None else codes[block][mask[block]]
        count += np.bincount(part, minlength=groups)
    return count


def duration_type(start_ns: Ints, end_ns: Ints) -> type[np.signedinteger]:
    """What holds end - start, ns: 32 bits unless one is longer than two seconds."""
    longest = max(
        (int((end_ns[block] - start_ns[block]).max()) for block in blocks(len(start_ns))), default=0
    )
    return np.int32 if longest < 1 << 31 else np.int64


def durations(start_ns: Ints, end_ns: Ints) -> npt.NDArray[np.integer]:
    """end - start, ns."""
    result = np.empty(len(start_ns), dtype=duration_type(start_ns, end_ns))
    return np.subtract(end_ns, start_ns, out=result, casting="same_kind")


@dataclass(frozen=True)
class Numbered:
    """Rows by number: rows[code[i]] are the values of the i-th row."""

    code: npt.NDArray[np.integer]
    rows: list[tuple[int, ...]]


def numbered(*columns: npt.NDArray[np.integer]) -> Numbered:
    """The distinct rows of these columns, all of one length."""
    code, first = _number(columns)
    return Numbered(smallest(code), list(zip(*(column[first].tolist() for column in columns), strict=True)))


class Groups:
    """Numbers the distinct rows that it is shown, chunk by chunk, in the order of their appearance."""

    def __init__(self) -> None:
        self._codes: dict[tuple[int, ...], int] = {}

    @property
    def rows(self) -> list[tuple[int, ...]]:
        """The distinct rows; a row's place is its code."""
        return list(self._codes)

    def encode(self, *columns: npt.NDArray[np.integer]) -> Codes:
        """The code of each row of these columns, all of one length."""
        codes = np.empty(len(columns[0]), dtype=np.int32)
        for block in blocks(len(codes)):
            codes[block] = self.recode(numbered(*(column[block] for column in columns)))
        return codes

    def recode(self, part: Numbered) -> Codes:
        """The codes of rows that have numbers of their own."""
        here = [self._codes.setdefault(row, len(self._codes)) for row in part.rows]
        return np.array(here, dtype=np.int32)[part.code]


def _number(columns: Sequence[npt.NDArray[np.integer]]) -> tuple[Ints, Ints]:
    """(number of each row, first row of each number): rows that are equal in all columns share a number."""
    rows = len(columns[0])
    key, keys = np.zeros(rows, dtype=np.int64), 1
    for column in columns:
        low, high = (int(column.min()), int(column.max())) if rows else (0, 0)
        if low == high:
            continue
        digit, span = column.astype(np.int64) - low, high - low + 1
        if high - low >= 1 << 31:  # NULLs and packed identifiers: their differences say nothing
            digit, distinct = pd.factorize(column)
            span = len(distinct)
        if keys * span >= 1 << 62:
            key, distinct = pd.factorize(key)
            keys = len(distinct)
        key, keys = key * span + digit, keys * span
    number, distinct = pd.factorize(key)
    first = np.zeros(len(distinct), dtype=np.int64)
    first[number[::-1]] = np.arange(rows)[::-1]  # the last to be written is the first of its number
    return number, first


def smallest(values: npt.NDArray[np.integer]) -> npt.NDArray[np.integer]:
    """The same integers in as few bytes as hold them all."""
    low, high = (int(values.min()), int(values.max())) if len(values) else (0, 0)
    return values.astype(np.promote_types(np.min_scalar_type(min(low, -1)), _signed(high)), copy=False)


def _signed(high: int) -> np.dtype:
    return np.min_scalar_type(-high - 1)
