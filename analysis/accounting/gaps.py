"""Idle intervals of each device: what lies between the merged intervals of its work."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.engine.compiled import loop_for
from analysis.engine.grouping import Codes
from analysis.engine.intervals import Ints


@dataclass(frozen=True)
class Gaps:
    """The gaps of all devices, ordered by device and time: arrays of one length.

    before, after: rows of the work that ended last and that started next; -1 at the window's ends.
    """

    device: np.ndarray
    start_ns: Ints
    end_ns: Ints
    before: Codes
    after: Codes

    def __len__(self) -> int:
        return len(self.start_ns)


def find_gaps(work: pd.DataFrame, window: tuple[int, int]) -> Gaps:
    """The idle intervals of every device with work; `work` is ordered by device and start, within the window.

    busy + idle = window holds exactly for each device. Work overlaps (streams, and kernels of one stream,
    too), so a gap begins at the latest end so far, not at the previous one.
    """
    device, start, end = (work[name].to_numpy() for name in ("device", "start_ns", "end_ns"))
    room = 2 * len(work)  # one before each at most, one after each device's last; what isn't used takes none
    device_of = np.empty(room, dtype=device.dtype)
    begins, ends = np.empty((2, room), dtype=np.int64)
    before, after = np.empty((2, room), dtype=np.int32)
    find = loop_for(_find, len(work))
    count = find(device, start, end, *window, device_of, begins, ends, before, after)
    return Gaps(device_of[:count], begins[:count], ends[:count], before[:count], after[:count])


def _find(
    device: np.ndarray, start: Ints, end: Ints, begins: int, ends: int,
    device_of: np.ndarray, gap_start: Ints, gap_end: Ints, before: Codes, after: Codes,
) -> int:  # fmt: skip
    """Fill the columns of `Gaps`, the last five; returns how many gaps there are."""
    count = 0
    rows = len(start)
    latest = -1  # the row that ended last so far
    until = begins
    for row in range(rows):
        if start[row] > until:
            device_of[count] = device[row]
            gap_start[count], gap_end[count] = until, start[row]
            before[count], after[count] = latest, row
            count += 1
        if latest < 0 or end[row] >= until:  # of equal ends the last in order
            latest = row
            until = max(until, end[row])
        if row + 1 == rows or device[row + 1] != device[row]:
            if ends > until:
                device_of[count] = device[row]
                gap_start[count], gap_end[count] = until, ends
                before[count], after[count] = latest, -1
                count += 1
            latest = -1
            until = begins
    return count
