"""The time of the host's threads in stretches, in each of which the same NVTX ranges are open."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.engine.compiled import loop_for
from analysis.engine.grouping import Codes, blocks, picked
from analysis.engine.intervals import Ints

HARNESS_DOMAIN = "harness"  # the NVTX domain of this project's own ranges


@dataclass(frozen=True)
class Stretches:
    """The time of each thread, cut wherever a range begins or ends: in a stretch the same ranges are open.

    Stretches are numbered by thread and time; the last number stands for "in no range", or no launch call.
    """

    threads: dict[int, tuple[int, int]]  # thread: first and last + 1 of its stretches
    start_ns: Ints
    innermost: Ints  # row of the range that the stretch is called after, -1 for none
    stretch: Ints  # with `phase`: the pairs (stretch, phase open in it), each once, ordered
    phase: Ints

    @classmethod
    def of(cls, ranges: pd.DataFrame, phase_of_range: Ints) -> Stretches:
        """Cut the threads' time at the borders of `ranges`, which may overlap in any way."""
        rows = np.flatnonzero((ranges["end_ns"] > ranges["start_ns"]).to_numpy())
        thread, threads = pd.factorize(ranges["thread"].to_numpy()[rows], sort=True)
        time = np.concatenate([ranges["start_ns"].to_numpy()[rows], ranges["end_ns"].to_numpy()[rows]])
        opens = np.repeat([1, 0], len(rows))
        row = np.tile(rows, 2)
        order = np.lexsort((row, opens, time, np.tile(thread, 2)))  # at one time, ends come first
        owner, time, opens, row = np.tile(thread, 2)[order], time[order], opens[order], row[order]
        border = np.append(np.flatnonzero((np.diff(time) != 0) | (np.diff(owner) != 0)), len(time) - 1)
        border = border if len(time) else np.empty(0, dtype=np.int64)  # the last event at each time
        ours = (ranges["domain"] == HARNESS_DOMAIN).to_numpy(dtype=bool)
        innermost = np.full(len(border) + 1, -1, dtype=np.int64)
        phases = int(phase_of_range.max(initial=-1)) + 1
        walk = loop_for(_walk, len(time))
        # How many pairs there are is known after a first walk that writes none.
        shape = (ranges["depth"].max() if len(ranges) else 0) + 1, phases
        none = np.empty(0, dtype=np.int64)
        room = walk(opens, row, border, phase_of_range, ours, *shape, innermost, none, none)
        stretch, phase = np.empty((2, room), dtype=np.int64)
        walk(opens, row, border, phase_of_range, ours, *shape, innermost, stretch, phase)
        first = np.searchsorted(owner[border], np.arange(len(threads) + 1))
        spans = {int(one): (int(first[n]), int(first[n + 1])) for n, one in enumerate(threads)}
        return cls(spans, time[border], innermost, stretch, phase)

    def __len__(self) -> int:
        return len(self.innermost)

    def of_calls(self, api: pd.DataFrame) -> Codes:
        """The stretch in which each call begins: shape [calls + 1], the last one for no call."""
        found = np.full(len(api) + 1, len(self) - 1, dtype=np.int32)
        thread, start = api["thread"].array.codes, api["start_ns"].to_numpy()
        for code, one in enumerate(api["thread"].cat.categories.tolist()):
            first, last = self.threads.get(one, (0, 0))
            low, high = np.searchsorted(thread, [code, code + 1])
            cut = low + np.append(np.searchsorted(start[low:high], self.start_ns[first:last]), high - low)
            for part in blocks(last - first):
                number = np.arange(first + part.start, first + part.stop, dtype=np.int32)
                borders = cut[part.start : part.stop + 1]
                found[borders[0] : borders[-1]] = np.repeat(number, np.diff(borders))
        return found

    def of_work(self, api: pd.DataFrame, launch: Codes) -> Codes:
        """The stretch in which the call that launched each piece of work began: shape [work]."""
        return picked(self.of_calls(api), launch)

    def members(self, spans: pd.DataFrame) -> Codes:
        """The row of `spans` around each stretch, -1 for none: shape [stretches]. Spans begin and end with
        stretches; those of a thread don't overlap."""
        found = np.full(len(self), -1, dtype=np.int32)
        for thread, mine in spans.groupby("thread"):
            low, high = self.threads.get(int(str(thread)), (0, 0))
            first, last = (
                low + np.searchsorted(self.start_ns[low:high], mine[name].to_numpy())
                for name in ("start_ns", "end_ns")
            )
            number = np.arange(low, high)
            row = np.searchsorted(first, number, side="right") - 1
            found[low:high] = np.where((row >= 0) & (number < last[row]), mine.index.to_numpy()[row], -1)
        return found


def _walk(
    opens: Ints, row: Ints, border: Ints, phase_of_range: Ints, ours: np.ndarray, depth: int, phases: int,
    innermost: Ints, stretch: Ints, phase: Ints,
) -> int:  # fmt: skip
    """Follow the events; writes the pairs if there is room for them, and returns how many there are.

    A library's range inside a phase of the harness must not hide the phase: the innermost range is the
    harness's own before any other.
    """
    stack = np.empty(depth + 1, dtype=np.int64)
    seen = np.full(phases + 1, -1, dtype=np.int64)
    height = 0
    pairs = 0
    event = 0
    for number in range(len(border)):
        while event <= border[number]:
            if opens[event] == 1:
                stack[height] = row[event]
                height += 1
            else:
                place = height - 1
                while stack[place] != row[event]:
                    place -= 1
                for above in range(place, height - 1):
                    stack[above] = stack[above + 1]
                height -= 1
            event += 1
        best = -1
        for level in range(height):
            one = stack[level]
            if best < 0 or ours[one] or not ours[best]:
                best = one
            if seen[phase_of_range[one]] != number:
                seen[phase_of_range[one]] = number
                if pairs < len(stretch):
                    stretch[pairs] = number
                    phase[pairs] = phase_of_range[one]
                pairs += 1
        innermost[number] = best
    return pairs
