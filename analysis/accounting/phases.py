"""Which NVTX ranges a piece of work belongs to: those that its launch call falls in.

Ranges are the host's: a kernel may start long after the range that launched it has ended, so it is the time
of the launch call that counts, never the kernel's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.accounting.stretches import HARNESS_DOMAIN as HARNESS_DOMAIN
from analysis.accounting.stretches import Stretches
from analysis.engine.compiled import loop_for
from analysis.engine.grouping import Codes, picked
from analysis.engine.intervals import Ints, covered_ns

ITERATION, DECODE, DECODE_STEP = "iter", "decode", "decode.step"  # ranges that the harness marks


def iterations(ranges: pd.DataFrame) -> pd.DataFrame:
    """The harness's outermost ranges, which bound the window; none in traces of other programs."""
    return ranges[(ranges["domain"] == HARNESS_DOMAIN) & (ranges["name"] == ITERATION)]


def within(work: pd.DataFrame, window: tuple[int, int]) -> np.ndarray:
    """Which work overlaps the window [start, end) in ns: bool [work]."""
    start, end = work["start_ns"].to_numpy(), work["end_ns"].to_numpy()
    inside = (start < window[1]) & (end > window[0])
    # What took less than the clock's tick.
    return inside | (start == end) & (start >= window[0]) & (end <= window[1])


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
        parts = Stretches.of(ranges, of_range)
        names = by_name.size().rename("count").reset_index()
        return cls(ranges, names, of_range, parts, parts.of_work(api, launch))

    def __len__(self) -> int:
        return len(self.names)

    def name_of(self, stretch: Codes) -> pd.Categorical:
        """The name of the innermost range, NA for none."""
        names = self.ranges["name"].array
        of_stretch = np.append(names.codes, -1).astype(names.codes.dtype)[self.stretches.innermost]
        return pd.Categorical.from_codes(picked(of_stretch, stretch), dtype=names.dtype)

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
