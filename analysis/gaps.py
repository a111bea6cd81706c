"""Idle intervals of each device, and what they waited for.

The causes:

- `launch`  the host had not launched the next work when the gap began, or was still inside the launch call;
- `queued`  the launch call had returned before the gap began: the device, a dependency or the driver waited;
- `graph`   between two pieces of work of one graph launch;
- `edge`    before the first and after the last work of the window;
- `unknown` the trace holds no launch call of the work that ended the gap.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.intervals import Ints, find_gaps

CAUSES = ["launch", "queued", "graph", "edge", "unknown"]


def device_gaps(work: pd.DataFrame, window: tuple[int, int]) -> pd.DataFrame:
    """The idle intervals of every device with work; `work` lies within the window (ns).

    Columns: device, start_ns, end_ns, dur_ns, before_row, after_row (rows of `work`, -1 at the edges).
    busy + idle = window holds exactly for each device.
    """
    device = work["device"].to_numpy()
    start, end = work["start_ns"].to_numpy(), work["end_ns"].to_numpy()
    before, after = find_gaps(device, start, end)
    inner = _gap_frame(device[after], end[before], start[after], before, after)

    spans = work.groupby("device")
    devices = np.unique(device)
    first, last = spans["start_ns"].idxmin().to_numpy(), spans["end_ns"].idxmax().to_numpy()
    none = np.full(len(devices), -1, dtype=np.int64)
    leading = _gap_frame(devices, np.full_like(none, window[0]), start[first], none, first)
    trailing = _gap_frame(devices, end[last], np.full_like(none, window[1]), last, none)

    gaps = pd.concat([leading, inner, trailing], ignore_index=True)
    return gaps[gaps["dur_ns"] > 0].sort_values(["device", "start_ns"], kind="stable", ignore_index=True)


def _gap_frame(device: Ints, start: Ints, end: Ints, before: Ints, after: Ints) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "device": device,
            "start_ns": start,
            "end_ns": end,
            "dur_ns": end - start,
            "before_row": before,
            "after_row": after,
        }
    )


def classify(gaps: pd.DataFrame, work: pd.DataFrame, api: pd.DataFrame, launch: Ints) -> pd.Categorical:
    """The cause of each gap; `launch` [work] is the row of `api` that launched each work, -1 if none."""
    before, after = gaps["before_row"].to_numpy(), gaps["after_row"].to_numpy()
    edge = (before < 0) | (after < 0)
    call = launch[after]
    call_end = np.append(api["end_ns"].to_numpy(), 0)[call]  # row -1 is never used: `unknown` below
    process, correlation = work["process"].to_numpy(), work["correlation"].to_numpy()
    same_launch = (process[before] == process[after]) & (correlation[before] == correlation[after])
    cause = np.select(
        [edge, same_launch & (correlation[after] >= 0), call < 0, call_end > gaps["start_ns"].to_numpy()],
        ["edge", "graph", "unknown", "launch"],
        "queued",
    )
    return pd.Categorical(cause, categories=CAUSES)
