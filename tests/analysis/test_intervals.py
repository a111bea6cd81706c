"""The interval arithmetic equals a count of nanoseconds one by one."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.accounting.gaps import _find
from analysis.engine.compiled import loop_for
from analysis.engine.intervals import covered_ns, nesting_levels

GROUPS = 3
intervals = st.lists(
    st.tuples(st.integers(0, GROUPS - 1), st.integers(-50, 50), st.integers(0, 12)), max_size=30
)
OFFSETS = st.sampled_from([0, 1_790_000_000_000_000_000, -(2**62)])  # wall-clock and negative times as well


def columns(items: list[tuple[int, int, int]], offset: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    table = np.array(items, dtype=np.int64).reshape(-1, 3)
    return table[:, 0], table[:, 1] + offset, table[:, 1] + table[:, 2] + offset


def busy_ns(items: list[tuple[int, int, int]], group: int) -> set[int]:
    return {ns for one, start, length in items if one == group for ns in range(start, start + length)}


@given(intervals, OFFSETS)
def test_union_length_is_exact(items: list[tuple[int, int, int]], offset: int) -> None:
    expected = [len(busy_ns(items, group)) for group in range(GROUPS)]
    assert covered_ns(*columns(items, offset), GROUPS).tolist() == expected


@settings(deadline=None)  # compiling takes longer
@given(intervals.filter(len), OFFSETS, st.integers(0, 5), st.sampled_from([_find, loop_for(_find, 10**6)]))
def test_gaps_are_the_idle_nanoseconds_of_the_window(
    items: list[tuple[int, int, int]], offset: int, margin: int, find: Callable[..., int]
) -> None:
    """By the loop as Python and as machine code."""
    items = sorted(items)
    group, start, end = columns(items, offset)
    window = int(start.min()) - margin, int(end.max()) + margin
    room = len(items) + GROUPS
    device, (begins, ends) = np.empty(room, dtype=group.dtype), np.empty((2, room), dtype=np.int64)
    before, after = np.empty((2, room), dtype=np.int32)
    count = find(group, start, end, *window, device, begins, ends, before, after)
    gaps: dict[int, list[int]] = {one: [] for one in group.tolist()}
    for row in range(count):
        first, last = before[row], after[row]
        bounds = end[first] if first >= 0 else window[0], start[last] if last >= 0 else window[1]
        assert bounds == (begins[row], ends[row]) and bounds[0] < bounds[1]
        assert device[row] == group[max(first, last)]
        gaps[int(device[row])] += range(bounds[0] - offset, bounds[1] - offset)
    for one, idle in gaps.items():
        assert len(idle) == len(set(idle)), "gaps of one group never overlap"
        assert set(idle) == set(range(window[0] - offset, window[1] - offset)) - busy_ns(items, one)


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 30)), max_size=30))
def test_intervals_of_one_level_never_overlap(items: list[tuple[int, int]]) -> None:
    start = np.array([at for at, _ in items], dtype=np.int64)
    end = start + np.array([length for _, length in items], dtype=np.int64)
    level = nesting_levels(start, end)
    for one in np.unique(level):
        mine = sorted(zip(start[level == one], end[level == one], strict=True))
        assert all(right[0] >= left[1] for left, right in pairwise(mine))


def test_levels_of_nested_intervals_are_their_depth() -> None:
    start, end = np.array([0, 1, 2, 5, 20]), np.array([10, 4, 3, 9, 30])
    assert nesting_levels(start, end).tolist() == [0, 1, 2, 1, 0]
