"""Which NVTX ranges a piece of work belongs to: those that its launch call falls in.

Ranges are the host's: a kernel may start long after the range that launched it has ended, so it is the time
of the launch call that counts, never the kernel's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.compiled import loop_for
from analysis.grouping import Codes, blocks
from analysis.intervals import Ints, covered_ns

HARNESS_DOMAIN = "harness"  # the NVTX domain of this project's own ranges
ITERATION = "iter"
DECODE_STEP = "decode.step"


@dataclass(frozen=True)
class Stretches:
    """The time of each thread, cut wherever a range begins or ends: in a stretch the same ranges are open.

    Stretches are numbered by thread and time; the last number stands for "in no range".
    """

    threads: dict[int, tuple[int, int]]  # thread: first and last + 1 of its stretches
    start_ns: Ints
    innermost: Ints  # row of the range that the stretch is called after, -1 for none
    stretch: Ints  # with `phase`: the pairs (stretch, phase open in it), each once, ordered
    phase: Ints

    def __len__(self) -> int:
        return len(self.innermost)

    def of_calls(self, api: pd.DataFrame, call: Codes) -> Codes:
        """The stretch in which each call (row of `api`) began; "in no range" for row -1."""
        found = np.full(len(call), len(self) - 1, dtype=np.int32)
        codes, start = api["thread"].cat.codes.to_numpy(), api["start_ns"].to_numpy()
        spans = [self.threads.get(one, (0, 0)) for one in api["thread"].cat.categories.tolist()]
        for block in blocks(len(call)):
            rows = call[block]
            for code, (first, last) in enumerate(spans):
                mine = np.flatnonzero((rows >= 0) & (codes[rows] == code)) if first < last else rows[:0]
                place = np.searchsorted(self.start_ns[first:last], start[rows[mine]], side="right") - 1
                found[block][mine] = np.where(place >= 0, first + place, len(self) - 1)
        return found


def stretches(ranges: pd.DataFrame, phase_of_range: Ints) -> Stretches:
    """Cut the threads' time at the borders of `ranges`; ranges may overlap in any way."""
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
    return Stretches(spans, time[border], innermost, stretch, phase)


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


@dataclass(frozen=True)
class Phases:
    """The ranges by (domain, name), and the stretch in which each piece of work was launched."""

    ranges: pd.DataFrame
    names: pd.DataFrame  # domain, name, count: one row per phase
    of_range: Ints
    stretches: Stretches
    stretch_of_work: Codes

    @classmethod
    def of(cls, ranges: pd.DataFrame, api: pd.DataFrame, launch: Codes) -> Phases:
        by_name = ranges.groupby(["domain", "name"], observed=True, sort=False)
        of_range = np.asarray(by_name.ngroup(), dtype=np.int64)
        parts = stretches(ranges, of_range)
        names = by_name.size().rename("count").reset_index()
        return cls(ranges, names, of_range, parts, parts.of_calls(api, launch))

    def __len__(self) -> int:
        return len(self.names)

    def name_of(self, stretch: Codes) -> pd.Categorical:
        """The name of the innermost range, NA for none."""
        names = self.ranges["name"].array
        of_stretch = np.append(names.codes, -1).astype(names.codes.dtype)[self.stretches.innermost]
        return pd.Categorical.from_codes(of_stretch[stretch], dtype=names.dtype)

    def total(self, per_stretch: Ints) -> Ints:
        """Sums over the stretches of each phase: [stretches, …] -> [phases, …]."""
        table = np.zeros((len(self), *per_stretch.shape[1:]), dtype=np.int64)
        np.add.at(table, self.stretches.phase, per_stretch[self.stretches.stretch])
        return table

    def members(self) -> Iterator[np.ndarray]:
        """For each phase, which stretches belong to it: bool [stretches]."""
        for phase in range(len(self)):
            mask = np.zeros(len(self.stretches), dtype=bool)
            mask[self.stretches.stretch[self.stretches.phase == phase]] = True
            yield mask

    def busy_ns(self, work: pd.DataFrame) -> Ints:
        """Union of each phase's work per device, summed over devices: shape [phases]."""
        first = np.searchsorted(self.stretches.stretch, np.arange(len(self.stretches) + 1))
        device, start, end = (work[name].to_numpy() for name in ("device", "start_ns", "end_ns"))
        busy = np.zeros(len(self), dtype=np.int64)
        loop_for(_busy, len(work))(
            device, start, end, self.stretch_of_work, first, self.stretches.phase, busy
        )
        return busy

    def wall_ns(self) -> Ints:
        """Host time inside each phase; a phase nested in itself counts once, threads add up."""
        thread, threads = pd.factorize(self.ranges["thread"])
        start, end = self.ranges["start_ns"].to_numpy(), self.ranges["end_ns"].to_numpy()
        group = self.of_range * max(len(threads), 1) + thread
        covered = covered_ns(group, start, end, len(self) * max(len(threads), 1))
        return covered.reshape(len(self), -1).sum(axis=1) if len(self) else covered


def _busy(
    device: np.ndarray, start: Ints, end: Ints, stretch: Codes, first: Ints, phase: Ints, busy: Ints
) -> None:
    until = np.zeros(len(busy), dtype=np.int64)
    for row in range(len(start)):
        if row == 0 or device[row] != device[row - 1]:
            until[:] = start[row]
        for pair in range(first[stretch[row]], first[stretch[row] + 1]):
            one = phase[pair]
            begins = max(start[row], until[one])
            if end[row] > begins:
                busy[one] += end[row] - begins
                until[one] = end[row]
