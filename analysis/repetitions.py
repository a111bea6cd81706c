"""The same piece of a program again and again (decode steps, iterations): the account of each repetition."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import pandas as pd

from analysis.accounting.account import Account
from analysis.accounting.causes import CAUSE_COLUMNS
from analysis.accounting.kernels import shorten
from analysis.accounting.phases import DECODE, DECODE_STEP, HARNESS_DOMAIN, ITERATION
from analysis.engine.compiled import loop_for
from analysis.engine.grouping import Codes, Groups
from analysis.engine.intervals import Ints
from analysis.reading.trace import Trace
from analysis.statistics import Sample, ratio_of

Unit = tuple[str, str]  # domain and name of the ranges that repeat; WINDOW is all of the trace, once
WINDOW: Unit = ("", "")
STEPS: Unit = (HARNESS_DOMAIN, DECODE_STEP)
ITERATIONS: Unit = (HARNESS_DOMAIN, ITERATION)

PIECE = ["name", "shape", "kind"]  # which work counts as the same


def units(phases: pd.DataFrame) -> list[Unit]:
    """What repeats in a trace with these `Account.phases`, the best to compare by first: decode steps,
    iterations, then the ranges of any other program, the most frequent ones with work first; the whole window
    at last."""
    busy = phases[phases["work"] > 0].sort_values("count", ascending=False, kind="stable")
    found: list[Unit] = list(zip(busy["domain"].astype(str), busy["name"].astype(str), strict=True))
    preferred = [unit for unit in (STEPS, ITERATIONS) if unit in found]
    return [*preferred, *(unit for unit in found if unit not in preferred), WINDOW]


def label(unit: Unit) -> str:
    """A unit as people call it."""
    if unit == WINDOW:
        return "trace"
    return {STEPS: "decode step", ITERATIONS: "iteration"}.get(unit, unit[1])


def shared_units(phases: Sequence[pd.DataFrame]) -> list[Unit]:
    """The units that all traces with these `Account.phases` have, the best first."""
    first, *others = (units(one) for one in phases)
    return [unit for unit in first if all(unit in one for one in others)]


def idle_share(repetitions: pd.DataFrame) -> Sample:
    """Of `Repeats.of`: idle time over idle and busy time."""
    return ratio_of(repetitions["idle_ns"], repetitions["idle_ns"] + repetitions["busy_ns"])


class Repeats:
    """The account of a trace by repetition; its methods take any of the trace's `units`.

    It keeps compact columns of its own, some 30 bytes for each piece of work: trace and account may go.
    """

    def __init__(self, trace: Trace, acc: Account) -> None:
        self._window = acc.window_ns
        ranges = trace.ranges[["domain", "name", "thread", "start_ns", "end_ns"]]
        overlap = (ranges["start_ns"] < self._window[1]) & (ranges["end_ns"] > self._window[0])
        self._ranges = ranges[overlap.to_numpy()]
        self._stretches, self._stretch = acc.by_stretch.stretches, acc.by_stretch.stretch_of_work
        self._idle_ns = acc.by_stretch.idle_ns
        work, rows = trace.work, acc.by_stretch.rows
        self._device, self._start_ns, self._end_ns = (
            work[name].to_numpy()[rows] for name in ("device", "start_ns", "end_ns")
        )
        self._names, self._shape, self._kind = (work[name].array[rows] for name in ("name", "shape", "kind"))

    def of(self, unit: Unit) -> pd.DataFrame:
        """One row per repetition with GPU work, in order of time: busy_ns (union of its work, per device),
        idle_ns (the gaps that its work ended), one column per cause, kernels, work.

        What a decode phase launches between two steps belongs to the earlier one, so that the steps add up to
        the phase. Work of neighbouring repetitions that overlaps is busy time of both.
        """
        part, parts = self._parts(unit)
        busy, until = np.zeros((2, parts), dtype=np.int64)
        loop_for(_busy, len(self._stretch))(
            self._device, self._start_ns, self._end_ns, self._stretch, part, *self._window, until, busy
        )
        spent = _summed(self._idle_ns, part, parts)
        table = pd.DataFrame({"busy_ns": busy, "idle_ns": spent.sum(axis=1)})
        table[CAUSE_COLUMNS] = spent
        table[["kernels", "work"]] = _summed(self._counts, part, parts)
        return table

    def gpus(self, unit: Unit) -> int:
        """How many GPUs the work of all repetitions together ran on."""
        if len(self._gpus) <= 1:
            return len(self._gpus)
        inside = self._parts(unit)[0][self._stretch] >= 0
        return len(pd.unique(self._device[inside]))

    def pieces(self, unit: Unit) -> pd.DataFrame:
        """What ran in all repetitions together: name (short), shape, kind, count, total_ns. A row's place is
        the piece's number."""
        table, code = self._pieces
        inside = self._parts(unit)[0][self._stretch] >= 0
        mine, dur_ns = (code, self._dur_ns) if inside.all() else (code[inside], self._dur_ns[inside])
        count = np.bincount(mine, minlength=len(table))
        # Exact: sums of integers below 2^53.
        total = np.bincount(mine, dur_ns, minlength=len(table)).astype(np.int64)
        return table.assign(count=count, total_ns=total)

    def times_ns(self, unit: Unit, pieces: Ints) -> Ints:
        """How long each of these pieces (-1: one that never ran) ran in each repetition: shape [pieces,
        repetitions]."""
        part, parts = self._parts(unit)
        table, code = self._pieces
        place = np.full(len(table), -1, dtype=np.int64)
        place[pieces[pieces >= 0]] = np.flatnonzero(pieces >= 0)
        rows = np.flatnonzero((place >= 0)[code] & (part >= 0)[self._stretch])
        cell = place[code[rows]] * parts + part[self._stretch[rows]]
        spent = np.bincount(cell, self._dur_ns[rows], minlength=len(pieces) * parts)
        return spent.astype(np.int64).reshape(len(pieces), parts)

    @property
    def _dur_ns(self) -> Ints:
        return self._end_ns - self._start_ns

    @cached_property
    def _gpus(self) -> np.ndarray:
        return np.asarray(pd.unique(self._device))

    @cached_property
    def _pieces(self) -> tuple[pd.DataFrame, Codes]:
        """The distinct pieces (PIECE), and which one each row of the work is."""
        columns = dict(zip(PIECE, (shorten(pd.Series(self._names)), self._shape, self._kind), strict=True))
        groups = Groups()
        code = groups.encode(*(column.codes for column in columns.values()))
        rows = np.array(groups.rows, dtype=np.int64).reshape(-1, len(PIECE)).T
        known = zip(columns.items(), rows, strict=True)
        table = {name: column.categories[row].astype(str) for (name, column), row in known}
        return pd.DataFrame(table), code

    @cached_property
    def _counts(self) -> Ints:
        """Kernels and work launched in each stretch: shape [stretches, 2]."""
        is_kernel = np.append(self._kind.categories.isin(["kernel", "graph"]), False)[self._kind.codes]
        kernels, work = (
            np.bincount(rows, minlength=len(self._stretches))
            for rows in (self._stretch[is_kernel], self._stretch)
        )
        return np.stack([kernels, work], axis=1)

    def _parts(self, unit: Unit) -> tuple[Codes, int]:
        """The repetition that each stretch belongs to, -1 for none: shape [stretches]; and their number.

        Repetitions that launched nothing are not counted: of the device they tell nothing.
        """
        if unit == WINDOW:
            return np.zeros(len(self._stretches), dtype=np.int32), int(len(self._stretch) > 0)
        spans = self._spans(unit)
        part = self._stretches.members(spans)
        launched = _summed(self._counts, part, len(spans))[:, 1] > 0
        number = np.append(np.where(launched, np.cumsum(launched) - 1, -1), -1).astype(np.int32)
        return number[part], int(launched.sum())

    def _spans(self, unit: Unit) -> pd.DataFrame:
        """Host time of each repetition: thread, start_ns, end_ns; those of a thread never overlap."""
        spans = self._outermost(unit)
        phases = self._outermost((HARNESS_DOMAIN, DECODE)) if unit == STEPS else spans.iloc[:0]
        if phases.empty:
            return spans
        # A step lasts until the next one begins; the first and the last reach to the ends of their phase.
        outer = _containing(phases, spans["thread"].to_numpy(), spans["start_ns"].to_numpy())
        start, end = spans["start_ns"].to_numpy().copy(), spans["end_ns"].to_numpy().copy()
        inside = outer >= 0
        first = inside & (outer != np.append(-1, outer[:-1]))
        last = inside & (outer != np.append(outer[1:], -1))
        end[inside & ~last] = start[np.flatnonzero(inside & ~last) + 1]
        start[first] = phases["start_ns"].to_numpy()[outer[first]]
        end[last] = phases["end_ns"].to_numpy()[outer[last]]
        return spans.assign(start_ns=start, end_ns=end)

    def _outermost(self, unit: Unit) -> pd.DataFrame:
        """The ranges of this name in the window that begin in no other, ordered by thread and start."""
        same = (self._ranges["domain"] == unit[0]) & (self._ranges["name"] == unit[1])
        mine = self._ranges.loc[same.to_numpy(), ["thread", "start_ns", "end_ns"]].astype(np.int64)
        mine = mine.sort_values(["thread", "start_ns"], kind="stable", ignore_index=True)
        kept = loop_for(_apart, len(mine))(*(mine[name].to_numpy() for name in mine))
        return mine.iloc[kept].reset_index(drop=True)


def _summed(per_stretch: Ints, part: Codes, parts: int) -> Ints:
    """Sums over the stretches of each part: [stretches, columns] to [parts, columns]."""
    mine = part >= 0
    # Exact: sums of integers below 2^53.
    columns = [np.bincount(part[mine], column[mine], minlength=parts) for column in per_stretch.T]
    return np.stack(columns, axis=1).astype(np.int64)


def _busy(
    device: np.ndarray, start: Ints, end: Ints, stretch: Codes, part: Codes, begins: int, ends: int,
    until: Ints, busy: Ints,
) -> None:  # fmt: skip
    """Add the union of each part's work per device to `busy`; rows are ordered by device and start."""
    for row in range(len(start)):
        if row == 0 or device[row] != device[row - 1]:
            until[:] = begins
        one = part[stretch[row]]
        if one >= 0:
            since = max(start[row], until[one])
            last = min(end[row], ends)
            if last > since:
                busy[one] += last - since
                until[one] = last


def _apart(thread: Ints, start: Ints, end: Ints) -> Ints:
    """The spans, ordered by thread and start, that don't begin in the last one that was taken."""
    taken = np.empty(len(start), dtype=np.int64)
    count = 0
    for row in range(len(start)):
        last = taken[count - 1] if count else -1
        if last < 0 or thread[row] != thread[last] or start[row] >= end[last]:
            taken[count] = row
            count += 1
    return taken[:count]


def _containing(spans: pd.DataFrame, thread: Ints, time_ns: Ints) -> Ints:
    """Row of `spans` around each time on its thread, -1 for none."""
    found = np.full(len(time_ns), -1, dtype=np.int64)
    for one, part in spans.groupby("thread"):
        mine = np.flatnonzero(thread == one)
        row = np.searchsorted(part["start_ns"].to_numpy(), time_ns[mine], side="right") - 1
        inside = (row >= 0) & (time_ns[mine] < part["end_ns"].to_numpy()[row])
        found[mine] = np.where(inside, part.index.to_numpy()[row], -1)
    return found
