"""One small integer for each distinct combination of integers."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.intervals import Ints

Codes = npt.NDArray[np.int32]


class Groups:
    """Numbers the distinct rows that it is shown, chunk by chunk, in the order of their appearance."""

    def __init__(self) -> None:
        self._codes: dict[tuple[int, ...], int] = {}

    @property
    def rows(self) -> list[tuple[int, ...]]:
        """The distinct rows; a row's place is its code."""
        return list(self._codes)

    def encode(self, *columns: npt.NDArray[np.integer] | int) -> Codes:
        """The code of each row of these columns (arrays of one length; an integer stands for a constant)."""
        arrays = [column for column in columns if isinstance(column, np.ndarray)]
        local, first = _number(arrays)
        parts = [
            column[first].tolist() if isinstance(column, np.ndarray) else [column] * len(first)
            for column in columns
        ]
        here = [self._codes.setdefault(row, len(self._codes)) for row in zip(*parts, strict=True)]
        return np.array(here, dtype=np.int32)[local] if here else np.empty(0, dtype=np.int32)


def _number(columns: list[npt.NDArray[np.integer]]) -> tuple[Ints, Ints]:
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
