"""Why a device was idle: each gap cut at the borders between its causes, to the nanosecond.

A gap ends with a piece of work. Until the call that launched that work began, the launching thread is to
blame, for what it was doing; from then on the launch; and if the call had returned before the gap began, the
work waited on the device. The causes:

- `host`        the launch call had not begun, and its thread was between CUDA calls: in its own code;
- `sync`        it was inside a synchronisation, or inside the call of an earlier copy (which blocked);
- `api`         it was inside another CUDA call: allocation, module load, graph instantiation, event record;
- `launch`      inside a launch call, and from the return of the work's own until the work began;
- `dependency`  launched in time, but waited for an event or for another stream;
- `graph`       between nodes of one graph launch;
- `dispatch`    launched in time, back to back in one stream;
- `profiler`    the profiler's own work on that thread, whatever else the time would have been;
- `unknown`     what the trace can't tell: no launch call, another process's work before, a long wait without
                a recorded reason.

The gap between the last work and the end of the window has no launch that ends it: it is blamed on the
thread that launched the last work.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.accounting.gaps import Gaps
from analysis.accounting.host import Calls, launch_waits
from analysis.engine.compiled import loop_for
from analysis.engine.grouping import BLOCK_ROWS, Codes, Groups, zero_column
from analysis.engine.intervals import Ints
from analysis.reading.trace import Trace

CAUSES = ("host", "sync", "api", "launch", "dependency", "graph", "dispatch", "profiler", "unknown")
CAUSE_COLUMNS = [f"{cause}_ns" for cause in CAUSES]
HOST_CAUSES = CAUSES[:4]  # what the host is to blame for: these make a launch gap
HOST_COLUMNS = CAUSE_COLUMNS[: len(HOST_CAUSES)]
HOST, SYNC, API, LAUNCH, DEPENDENCY, GRAPH, DISPATCH, PROFILER, UNKNOWN = range(len(CAUSES))

# Longer than any pause of work that had only to be dispatched (H200: 1 to 3 us between kernels, 6 to 16 us
# between graphs).
DISPATCH_LIMIT_NS = 20_000

_CHUNK_GAPS = BLOCK_ROWS


@dataclass(frozen=True)
class Segments:
    """Gaps in parts: `gap` (its number), start_ns, end_ns, cause (index into CAUSES), in order of time."""

    gap: Codes
    start_ns: Ints
    end_ns: Ints
    cause: np.ndarray

    def tally(
        self, gaps: Gaps, device: np.ndarray, stretch: Codes, by_device: Ints, by_stretch: Ints,
        dominant: np.ndarray,
    ) -> None:  # fmt: skip
        """Add the time of each gap and cause to by_device[device[gap]] and to by_stretch[stretch[work]], of
        shape [groups, causes], and write the cause with most of it to dominant[gap].

        The work is what ended the gap; the last stretch stands for none.
        """
        loop_for(_tally, len(self.gap))(
            self.gap, self.start_ns, self.end_ns, self.cause, gaps.after, device, stretch, by_device,
            by_stretch, dominant,
        )  # fmt: skip


class Blame:
    """Cuts gaps into segments. Holds what it takes: the calls of each thread, the launch of each work."""

    def __init__(self, trace: Trace, gaps: Gaps, launch: Codes) -> None:
        """`gaps` has rows of the trace's work, `launch` [work] the call that launched each, -1 if unknown."""
        work = trace.work
        self._gaps = gaps
        self._launch = launch
        self._calls = Calls.of(trace.api, trace.overhead, call_cause)
        # Row -1, no call, reads a number that is not used: there has to be one.
        self._api_start, self._api_end, self._api_thread = (
            column if len(column) else np.zeros(1, dtype=np.int64)
            for column in (
                trace.api["start_ns"].to_numpy(),
                trace.api["end_ns"].to_numpy(),
                self._calls.thread,
            )
        )
        self._waited = launch_waits(trace, gaps, launch)
        self._process = work["process"].array.codes
        self._context, self._stream = work["context"].to_numpy(), work["stream"].to_numpy()
        self._continues = _continues(work, launch)

    def chunks(self) -> Iterator[Ints]:
        """Gap numbers in portions whose segments fit into memory."""
        count = len(self._gaps)
        return (np.arange(at, min(at + _CHUNK_GAPS, count)) for at in range(0, count, _CHUNK_GAPS))

    def launches(self, gaps: Ints) -> Codes:
        """The call (row of the trace's) that launched what ended each of these gaps; -1: unknown."""
        after = self._gaps.after[gaps]
        return np.where(after >= 0, self._launch[after], -1).astype(np.int32)

    def cut(self, gaps: Ints) -> Segments:
        """The segments of these gaps (numbers)."""
        begins, ends = self._gaps.start_ns[gaps], self._gaps.end_ns[gaps]
        thread, called, returned, tail = self._plan(gaps)
        calls = self._calls
        first, last = calls.between(thread, begins, called)
        noted, noted_last = calls.overhead_between(thread, begins, ends)
        room = 3 * len(gaps) + 2 * int((last - first).sum() + (noted_last - noted).sum())
        gap, cause = np.empty(room, dtype=np.int32), np.empty(room, dtype=np.int8)
        start, end = np.empty((2, room), dtype=np.int64)
        count = loop_for(_cut, len(gaps))(
            begins, called, returned, ends, tail, first, last, noted, noted_last,
            calls.start_ns, calls.end_ns, calls.cause, calls.overhead_start_ns, calls.overhead_end_ns,
            gap, start, end, cause,
        )  # fmt: skip
        return Segments(gaps[gap[:count]].astype(np.int32), start[:count], end[:count], cause[:count])

    def _plan(self, gaps: Ints) -> tuple[Ints, Ints, Ints, Ints]:
        """Per gap: the thread (-1: unknown), when its launch call began and returned, and the cause from then
        on. Both times are clamped to the gap."""
        begins, ends = self._gaps.start_ns[gaps], self._gaps.end_ns[gaps]
        before, after = self._gaps.before[gaps], self._gaps.after[gaps]
        trailing = after < 0
        call = self._launch[np.where(trailing, before, after)]
        known = call >= 0
        thread = np.where(known, self._api_thread[call], -1)
        called = np.where(trailing, ends, self._api_start[call])
        returned = np.where(trailing, ends, self._api_end[call])
        in_time = returned <= begins
        tail = np.where(in_time, self._waiting(gaps), LAUNCH)
        tail = np.where(self._waited[gaps], DEPENDENCY, tail)
        tail = np.where(known, tail, UNKNOWN)
        graph = self._continues[after] & ~trailing
        tail = np.where(graph, GRAPH, tail)
        at_once = graph | ~known
        called = np.where(at_once, begins, np.clip(called, begins, ends))
        returned = np.where(at_once, begins, np.clip(returned, called, ends))
        return thread, called, returned, tail

    def _waiting(self, gaps: Ints) -> Ints:
        """What work that was launched in time waited for, by what ran before it."""
        before, after = self._gaps.before[gaps], self._gaps.after[gaps]
        short = self._gaps.end_ns[gaps] - self._gaps.start_ns[gaps] <= DISPATCH_LIMIT_NS
        one_process = (before >= 0) & (self._process[before] == self._process[after])
        one_stream = one_process.copy()
        for column in (self._context, self._stream):
            one_stream &= column[before] == column[after]
        return np.select([one_stream & short, one_process & ~one_stream], [DISPATCH, DEPENDENCY], UNKNOWN)


def _continues(work: pd.DataFrame, launch: Codes) -> np.ndarray:
    """Whether other work of the same launch had started before: shape [work]."""
    start = work["start_ns"].to_numpy()
    key = launch
    lost = np.flatnonzero((launch < 0) & (work["correlation"].to_numpy() > 0))
    if len(lost):  # without a call there is still the correlation id
        part = work.iloc[lost]
        key = launch.copy()
        key[lost] = (
            launch.max() + 1 + Groups().encode(part["process"].array.codes, part["correlation"].to_numpy())
        )
    first = np.full(int(key.max(initial=-1)) + 1, -1, dtype=np.int32)  # row of each launch's earliest work
    continues = zero_column(len(key), np.bool_)
    loop_for(_follow, len(key))(key, start, first, continues)
    return continues


def _follow(key: Codes, start: Ints, first: Codes, continues: np.ndarray) -> None:
    for row in range(len(key)):
        one = key[row]
        if one >= 0 and (first[one] < 0 or start[row] < start[first[one]]):
            first[one] = row
    for row in range(len(key)):
        continues[row] = key[row] >= 0 and start[row] > start[first[key[row]]]


def call_cause(name: str) -> int:
    """What a thread inside this CUDA call is blamed with, before the launch that ends the gap has begun.

    A copy's call counts as `sync`: its work is not what ends the gap, so it has run, and the call blocked.
    """
    if re.search(r"Synchronize|Memcpy", name):
        return SYNC
    if re.search(r"LaunchKernel|LaunchCooperative|GraphLaunch|^cuLaunch|Memset", name):
        return LAUNCH
    return API


def _tally(
    gap: Codes, start: Ints, end: Ints, cause: np.ndarray, after: Codes, device: np.ndarray,
    stretch: Codes, by_device: Ints, by_stretch: Ints, dominant: np.ndarray,
) -> None:  # fmt: skip
    """See `Segments.tally`; the segments of a gap follow one another."""
    spent = np.zeros(by_device.shape[1], dtype=np.int64)
    for row in range(len(gap)):
        one, what, time = gap[row], cause[row], end[row] - start[row]
        by_device[device[one], what] += time
        by_stretch[stretch[after[one]] if after[one] >= 0 else len(by_stretch) - 1, what] += time
        spent[what] += time
        if row + 1 == len(gap) or gap[row + 1] != one:
            most = 0
            for other in range(len(spent)):
                if spent[other] > spent[most]:
                    most = other
            dominant[one] = most
            spent[:] = 0


def _cut(
    begins: Ints, called: Ints, returned: Ints, ends: Ints, tail: Ints, call: Ints, last_call: Ints,
    noted: Ints, last_noted: Ints, call_start: Ints, call_end: Ints, call_cause: np.ndarray,
    overhead_start: Ints, overhead_end: Ints, gap: Codes, start: Ints, end: Ints, cause: np.ndarray,
) -> int:  # fmt: skip
    """Walk through each gap from border to border; returns how many segments were written."""
    count = 0
    for row in range(len(begins)):
        now = begins[row]
        at, over = call[row], noted[row]
        opened = count
        while now < ends[row]:
            if now < called[row]:  # the thread was not yet launching
                state = HOST
                until = called[row]
                while at < last_call[row] and call_end[at] <= now:
                    at += 1
                if at < last_call[row]:
                    if call_start[at] > now:
                        until = min(until, call_start[at])
                    else:
                        state = call_cause[at]
                        until = min(until, call_end[at])
            elif now < returned[row]:
                state = LAUNCH
                until = returned[row]
            else:
                state = tail[row]
                until = ends[row]
            while over < last_noted[row] and overhead_end[over] <= now:
                over += 1
            if over < last_noted[row]:
                if overhead_start[over] > now:
                    until = min(until, overhead_start[over])
                else:
                    state = PROFILER
                    until = min(until, overhead_end[over])
            if count > opened and cause[count - 1] == state:
                end[count - 1] = until
            else:
                gap[count] = row
                start[count] = now
                end[count] = until
                cause[count] = state
                count += 1
            now = until
    return count
