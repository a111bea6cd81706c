"""Arithmetic on many intervals at once: exact (int64 nanoseconds), vectorised, in any order.

An interval is half-open, `[start, end)`. Intervals carry a group (a device, a phase, a thread), coded
0..G-1; only intervals of one group meet each other. Work on a GPU overlaps (streams, and kernels of one
stream too), so "next start minus previous end" is wrong: everything here rests on the latest end so far.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Ints: TypeAlias = npt.NDArray[np.int64]


def latest_end_so_far(group: Ints, end: Ints) -> Ints:
    """Index of the row with the latest end among the rows up to and including each row of its group.

    The rows must be sorted by group. Ends are compared by rank, so that one running maximum serves all
    groups at once whatever the magnitude of the times.
    """
    n = len(end)
    by_end = np.argsort(end, kind="stable")
    rank = np.empty(n, dtype=np.int64)
    rank[by_end] = np.arange(n)
    latest = np.maximum.accumulate(group * n + rank)
    return by_end[latest - group * n]


def covered_ns(group: Ints, start: Ints, end: Ints, groups: int) -> Ints:
    """Length of the union of each group's intervals, ns: shape [groups]."""
    total = np.zeros(groups, dtype=np.int64)
    if len(start) == 0:
        return total
    order = np.lexsort((end, start, group))
    g, s, e = group[order], start[order], end[order]
    latest = latest_end_so_far(g, e)
    seen_until = np.empty_like(s)
    seen_until[0] = s[0]
    seen_until[1:] = np.where(g[1:] == g[:-1], e[latest[:-1]], s[1:])
    np.add.at(total, g, np.maximum(e - np.maximum(s, seen_until), 0))
    return total


def nesting_levels(start: Ints, end: Ints) -> Ints:
    """A level per interval such that intervals of one level never overlap; outermost first.

    For properly nested intervals this is the nesting depth. The loop is over ranges that a person or a
    framework wrote, never over kernels.
    """
    level = np.empty(len(start), dtype=np.int64)
    free_at: list[int] = []
    for row in np.lexsort((-end, start)):
        begins, ends = int(start[row]), int(end[row])
        for depth, free in enumerate(free_at):
            if free <= begins:
                free_at[depth] = ends
                break
        else:
            depth = len(free_at)
            free_at.append(ends)
        level[row] = depth
    return level
