"""The host's time in slices, for whatever unit of repetition is asked for later."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.grouping import Codes
from analysis.intervals import Ints


@dataclass(frozen=True)
class Slices:
    """The time of each thread, cut wherever a range begins or ends, so that each repetition of whatever unit
    is a run of slices. They are numbered by thread and time; the last stands for no thread or no launch call.
    """

    threads: dict[int, tuple[int, int]]  # thread: first and last + 1 of its slices
    start_ns: Ints

    @classmethod
    def of(cls, ranges: pd.DataFrame) -> Slices:
        threads, starts, count = {}, [np.empty(0, dtype=np.int64)], 0
        for thread, mine in ranges.groupby("thread"):
            starts.append(np.unique(mine[["start_ns", "end_ns"]].to_numpy()))
            threads[int(str(thread))] = count, count + len(starts[-1])
            count += len(starts[-1])
        return cls(threads, np.concatenate(starts))

    def __len__(self) -> int:
        return len(self.start_ns) + 1

    def of_calls(self, api: pd.DataFrame) -> Codes:
        """The slice in which each call begins: shape [calls]."""
        found = np.full(len(api), len(self) - 1, dtype=np.int32)
        thread, start = api["thread"].array.codes, api["start_ns"].to_numpy()
        for code, one in enumerate(api["thread"].cat.categories.tolist()):
            first, last = self.threads.get(one, (0, 0))
            low, high = np.searchsorted(thread, [code, code + 1])
            cut = low + np.append(np.searchsorted(start[low:high], self.start_ns[first:last]), high - low)
            if first < last:
                found[cut[0] : high] = np.repeat(np.arange(first, last, dtype=np.int32), np.diff(cut))
        return found

    def members(self, spans: pd.DataFrame) -> Codes:
        """The row of `spans` around each slice, -1 for none: shape [slices]. Spans begin and end with slices;
        those of a thread don't overlap."""
        found = np.full(len(self), -1, dtype=np.int32)
        for thread, mine in spans.groupby("thread"):
            low, high = self.threads[int(str(thread))]
            first, last = (
                low + np.searchsorted(self.start_ns[low:high], mine[name].to_numpy())
                for name in ("start_ns", "end_ns")
            )
            number = np.arange(low, high)
            row = np.searchsorted(first, number, side="right") - 1
            found[low:high] = np.where((row >= 0) & (number < last[row]), mine.index.to_numpy()[row], -1)
        return found
