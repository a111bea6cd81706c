"""The order of rows that doesn't depend on the file's: since 2025.6 nsys promises none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.engine.grouping import Codes, blocks, picked, zero_column
from analysis.engine.intervals import Ints

Column: TypeAlias = np.ndarray | pd.Categorical


def in_order(columns: dict[str, Column], group: str, ties: Sequence[str]) -> pd.DataFrame:
    """A table ordered by group, start and, where both are equal, by `ties`.

    The dict's columns are replaced one by one, so that only one at a time is in memory twice.
    """
    order = _order(columns, group, "start_ns")
    for name in (group, "start_ns"):
        columns[name] = _reordered(columns[name], order)
    order = _untied(order, columns, group, "start_ns", ties)
    for name in columns:
        if name not in (group, "start_ns"):
            columns[name] = _reordered(columns[name], order)
    return pd.DataFrame(columns, copy=False)


def _reordered(column: Column, order: Codes | None) -> Column:
    if order is None:
        return column
    if isinstance(column, pd.Categorical):
        return pd.Categorical.from_codes(taken(column.codes, order), dtype=column.dtype)
    return taken(column, order)


def taken(values: np.ndarray, rows: npt.NDArray[np.integer]) -> np.ndarray:
    """values[rows]; only zeros, as codes of the one process or device often are, take no memory."""
    return picked(values, rows) if values.any() else zero_column(len(rows), values.dtype)


def _order(columns: Mapping[str, Column], group: str, start: str) -> Codes | None:
    """The rows ordered by group and start; None if that is the order they are in."""
    code, time = _codes(columns[group]), np.asarray(columns[start])
    return None if _ascending(code, time) else np.lexsort([time, code]).astype(np.int32)


def _ascending(code: np.ndarray, time: Ints) -> bool:
    """Whether rows are in order of code and time."""
    for block in blocks(len(time) - 1):
        here, after = code[:-1][block], code[1:][block]
        sooner = time[1:][block] < time[:-1][block]
        if ((after < here) | (after == here) & sooner).any():
            return False
    return True


def _untied(
    order: Codes | None, columns: Mapping[str, Column], group: str, start: str, ties: Sequence[str]
) -> Codes | None:
    """`order`, in which rows of equal group and start are put in order of `ties`; the former two columns are
    in order, all others are not yet."""
    code, time = _codes(columns[group]), np.asarray(columns[start])
    again = np.empty(0, dtype=np.int64)  # rows that equal the one before
    for block in blocks(len(time) - 1):
        same = (time[1:][block] == time[:-1][block]) & (code[1:][block] == code[:-1][block])
        again = np.append(again, block.start + 1 + np.flatnonzero(same))
    if len(again) == 0:
        return order
    order = np.arange(len(time), dtype=np.int32) if order is None else order
    tied = np.union1d(again - 1, again)
    ranks = [_codes(columns[name])[order[tied]] for name in reversed(ties)]
    order[tied] = order[tied][np.lexsort([*ranks, np.cumsum(~np.isin(tied, again))])]
    return order


def _codes(column: Column) -> np.ndarray:
    return column.codes if isinstance(column, pd.Categorical) else column
