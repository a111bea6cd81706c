"""The interval arithmetic equals a count of nanoseconds one by one."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from analysis.intervals import covered_ns, find_gaps, nesting_levels

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


@given(intervals, OFFSETS)
def test_gaps_are_the_idle_nanoseconds_between_intervals(
    items: list[tuple[int, int, int]], offset: int
) -> None:
    group, start, end = columns(items, offset)
    before, after = find_gaps(group, start, end)
    assert (group[before] == group[after]).all()
    assert (start[after] > end[before]).all()
    for one in range(GROUPS):
        mine = group[after] == one
        bounds = zip(end[before[mine]] - offset, start[after[mine]] - offset, strict=True)
        gaps = [ns for left, right in bounds for ns in range(left, right)]
        assert len(gaps) == len(set(gaps)), "gaps of one group never overlap"
        ours = [(at, at + length) for g, at, length in items if g == one]
        span = set(range(min((s for s, _ in ours), default=0), max((e for _, e in ours), default=0)))
        assert set(gaps) == span - busy_ns(items, one)


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
