"""The same piece of a program again and again (decode steps, iterations): the account of each repetition."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from analysis.accounting import Account
from analysis.causes import CAUSE_COLUMNS, CAUSES
from analysis.host import match_launches
from analysis.intervals import Ints, covered_ns
from analysis.kernels import shorten
from analysis.phases import DECODE_STEP, HARNESS_DOMAIN, ITERATION
from analysis.trace import Trace

DECODE = "decode"
Unit = tuple[str, str]  # domain and name of the ranges that repeat; WINDOW is all of the trace, once
WINDOW: Unit = ("", "")
STEPS: Unit = (HARNESS_DOMAIN, DECODE_STEP)
ITERATIONS: Unit = (HARNESS_DOMAIN, ITERATION)

PIECE = ["name", "shape", "kind"]  # which work counts as the same

_CHUNK_GAPS = 500_000


def units(acc: Account) -> list[Unit]:
    """What repeats in a trace, the best to compare by first: decode steps, iterations, then the ranges of
    any other program, the most frequent ones with work first; the whole window at last."""
    busy = acc.phases[acc.phases["work"] > 0].sort_values("count", ascending=False, kind="stable")
    found: list[Unit] = list(zip(busy["domain"].astype(str), busy["name"].astype(str), strict=True))
    preferred = [unit for unit in (STEPS, ITERATIONS) if unit in found]
    return [*preferred, *(unit for unit in found if unit not in preferred), WINDOW]


def label(unit: Unit) -> str:
    """A unit as people call it."""
    if unit == WINDOW:
        return "trace"
    return {STEPS: "decode step", ITERATIONS: "iteration"}.get(unit, unit[1])


def shared_unit(accounts: Sequence[Account]) -> Unit:
    """The best unit that all of these traces have."""
    first, *others = (units(acc) for acc in accounts)
    return next(unit for unit in first if all(unit in one for one in others))


class Repeats:
    """The account of a trace by repetition; `of` and `pieces` take any of the trace's `units`."""

    def __init__(self, trace: Trace, acc: Account) -> None:
        self._trace = trace
        self._acc = acc
        launch = np.asarray(match_launches(trace.work, trace.api))
        self._known = np.flatnonzero(launch >= 0)
        called = launch[self._known]
        self._thread = np.asarray(trace.api["thread"], dtype=np.int64)[called]
        self._called_ns = trace.api["start_ns"].to_numpy()[called]

    def of(self, unit: Unit) -> pd.DataFrame:
        """One row per repetition with GPU work, in order of time: busy_ns (union of its work, per device),
        idle_ns (the gaps that its work ended), one column per cause, kernels, work.

        What a decode phase launches between two steps belongs to the earlier one, so that the steps add up to
        the phase. Work of neighbouring repetitions that overlaps is busy time of both.
        """
        part, parts = self._parts(unit)
        work, rows = self._trace.work, np.flatnonzero(part >= 0)
        device, devices = pd.factorize(work["device"].to_numpy()[rows])
        start, end = (
            work[name].to_numpy()[rows].clip(*self._acc.window_ns) for name in ("start_ns", "end_ns")
        )
        lanes = max(len(devices), 1)
        busy = covered_ns(part[rows] * lanes + device, start, end, parts * lanes)
        table = pd.DataFrame({"busy_ns": busy.reshape(parts, lanes).sum(axis=1)})
        spent = self._idle_by_cause(part, parts, unit)
        table["idle_ns"] = spent.sum(axis=1)
        table[CAUSE_COLUMNS] = spent
        is_kernel = work["kind"].isin(["kernel", "graph"]).to_numpy()[rows]
        table["kernels"] = np.bincount(part[rows][is_kernel], minlength=parts)
        table["work"] = np.bincount(part[rows], minlength=parts)
        return table

    def pieces(self, unit: Unit) -> pd.DataFrame:
        """What ran in each: repetition (row of `of`), name (short), shape, kind, count, total_ns."""
        part, _ = self._parts(unit)
        rows = np.flatnonzero(part >= 0)
        work = self._trace.work.iloc[rows]
        frame = pd.DataFrame(
            {
                "repetition": part[rows],
                "name": shorten(work["name"]),
                "shape": work["shape"].to_numpy(),
                "kind": work["kind"].to_numpy(),
                "dur_ns": (work["end_ns"] - work["start_ns"]).to_numpy(),
            }
        )
        groups = frame.groupby(["repetition", *PIECE], observed=True, sort=False)["dur_ns"]
        found = groups.agg(count="size", total_ns="sum").reset_index()
        return found.astype(dict.fromkeys(PIECE, str))

    def _parts(self, unit: Unit) -> tuple[Ints, int]:
        """The repetition that launched each row of the work, -1 for none: shape [work]; and their number.

        Repetitions that launched nothing are not counted: of the device they tell nothing.
        """
        part = np.full(len(self._trace.work), -1, dtype=np.int64)
        if unit == WINDOW:
            start, end = (self._trace.work[name].to_numpy() for name in ("start_ns", "end_ns"))
            part[(start < self._acc.window_ns[1]) & (end > self._acc.window_ns[0])] = 0
            return part, int(len(part) > 0)
        spans = self._spans(unit)
        part[self._known] = _containing(spans, self._thread, self._called_ns)
        seen, place = np.unique(part[part >= 0], return_inverse=True)
        part[part >= 0] = place
        return part, len(seen)

    def _spans(self, unit: Unit) -> pd.DataFrame:
        """Host time of each repetition: thread, start_ns, end_ns; those of a thread never overlap."""
        spans = self._ranges(unit)
        phases = self._ranges((HARNESS_DOMAIN, DECODE)) if unit == STEPS else spans.iloc[:0]
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

    def _ranges(self, unit: Unit) -> pd.DataFrame:
        """The outermost ranges of this name in the window, ordered by thread and start."""
        ranges, window = self._trace.ranges, self._acc.window_ns
        same = (ranges["domain"] == unit[0]) & (ranges["name"] == unit[1])
        same &= (ranges["start_ns"] < window[1]) & (ranges["end_ns"] > window[0])
        mine = ranges.loc[same.to_numpy(), ["thread", "start_ns", "end_ns"]].astype(np.int64)
        mine = mine.sort_values(["thread", "start_ns"], kind="stable", ignore_index=True)
        latest = mine.groupby("thread")["end_ns"].cummax()
        before = latest.groupby(mine["thread"]).shift(fill_value=0).to_numpy()
        return mine[mine["start_ns"].to_numpy() >= before].reset_index(drop=True)

    def _idle_by_cause(self, part: Ints, parts: int, unit: Unit) -> Ints:
        """Idle ns per repetition and cause: shape [parts, causes]."""
        after = np.asarray(self._acc.gaps["after_row"], dtype=np.int64)
        # The gap after all work was ended by none: it belongs to the window alone.
        owner = np.append(part, 0 if unit == WINDOW else -1)[after]
        rows = np.flatnonzero(owner >= 0)
        spent = np.zeros((parts, len(CAUSES)), dtype=np.int64)
        for first in range(0, len(rows), _CHUNK_GAPS):
            segments = self._acc.segments(rows[first : first + _CHUNK_GAPS])
            cause = pd.Categorical(segments["cause"], categories=list(CAUSES)).codes.astype(np.int64)
            cell = owner[np.asarray(segments["gap"])] * len(CAUSES) + cause
            dur = (segments["end_ns"] - segments["start_ns"]).to_numpy()
            # Exact: sums of integers below 2^53.
            spent += np.bincount(cell, dur, minlength=spent.size).astype(np.int64).reshape(spent.shape)
        return spent


def _containing(spans: pd.DataFrame, thread: Ints, time_ns: Ints) -> Ints:
    """Row of `spans` around each time on its thread, -1 for none."""
    found = np.full(len(time_ns), -1, dtype=np.int64)
    for one, part in spans.groupby("thread"):
        mine = np.flatnonzero(thread == one)
        row = np.searchsorted(part["start_ns"].to_numpy(), time_ns[mine], side="right") - 1
        inside = (row >= 0) & (time_ns[mine] < part["end_ns"].to_numpy()[row])
        found[mine] = np.where(inside, part.index.to_numpy()[row], -1)
    return found
