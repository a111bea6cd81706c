"""What the host's threads were doing: their CUDA calls, which call launched what, and waits for events."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.accounting.gaps import Gaps
from analysis.engine.grouping import Codes, Groups, blocks, strictly_ascending
from analysis.engine.intervals import Ints
from analysis.reading.schema import GRAPH_ID_SHIFT, THREAD_BITS
from analysis.reading.trace import Trace


def match_launches(work: pd.DataFrame, api: pd.DataFrame) -> Codes:
    """Row of `api` that launched each row of `work`, -1 where the trace has none: shape [work].

    The key is (process, correlation); the earliest of several calls counts. All nodes of a CUDA graph share
    the one call that launched it; so do those of its conditional nodes, which have no correlation id.
    """
    launch = np.full(len(work), -1, dtype=np.int32)
    callers = {process: code for code, process in enumerate(api["process"].cat.categories)}
    for code, process in enumerate(work["process"].cat.categories):
        if process not in callers:
            continue
        called = _equal(api["process"].array.codes, callers[process])
        calls, rows = _by_correlation(api, called)
        mine = _equal(work["process"].array.codes, code)
        correlation = work["correlation"].to_numpy()[mine]
        found = np.empty(len(correlation), dtype=np.int32)
        for block in blocks(len(found)):
            place = np.minimum(np.searchsorted(calls, correlation[block]), len(calls) - 1)
            known = (calls[place] == correlation[block]) & (correlation[block] >= 0)
            found[block] = np.where(known, place if rows is None else rows[place], -1)
        launch[mine] = found
    if "graph_node" in work:
        _adopt_conditional_nodes(work, launch, api["start_ns"].to_numpy())
    return launch


def conditional_nodes(work: pd.DataFrame) -> np.ndarray:
    """Which work is known to have run in the body of a conditional node of a graph (a loop on the device,
    say): there nsys gives no correlation ids. bool [work]."""
    return (work["graph_node"].array.codes >= 0) & (work["correlation"].to_numpy() <= 0)


def _adopt_conditional_nodes(work: pd.DataFrame, launch: Codes, call_start: Ints) -> None:
    """Give nodes without a call the latest launch of their graph.

    What runs inside a conditional node has no correlation id, but nodes of the same graph outside of it have
    one. The upper half of a node's id is its graph's.
    """
    node, start = work["graph_node"].array.codes, work["start_ns"].to_numpy()
    orphans = np.flatnonzero(conditional_nodes(work) & (launch < 0))
    if len(orphans) == 0:
        return
    known = np.flatnonzero((node >= 0) & (launch >= 0))
    graphs = Groups()
    graph_of = work["graph_node"].cat.categories.to_numpy(np.int64) >> GRAPH_ID_SHIFT
    process = work["process"].array.codes

    def graph(rows: Ints) -> Codes:
        return graphs.encode(process[rows].astype(np.int64), graph_of[node[rows]])

    of_known, of_orphan = graph(known), graph(orphans)
    for one in np.unique(of_orphan):
        launched = known[of_known == one]
        call = launch[launched]
        launched = launched[np.lexsort((call, call_start[call], start[launched]))]
        mine = orphans[of_orphan == one]
        before = np.searchsorted(start[launched], start[mine], side="right") - 1
        launch[mine[before >= 0]] = launch[launched[before[before >= 0]]]


def _by_correlation(api: pd.DataFrame, part: np.ndarray | slice) -> tuple[np.ndarray, Ints | None]:
    """Correlation ids of a part of the calls in ascending order, the earliest of equals first, and the rows
    of `api` that they come from; None if these are just all rows."""
    calls = api["correlation"].to_numpy()[part]
    if strictly_ascending(calls):
        return calls, None if isinstance(part, slice) else np.flatnonzero(part)
    order = np.argsort(calls, kind="stable")
    if (np.diff(calls[order]) == 0).any():
        order = np.lexsort((api["start_ns"].to_numpy()[part], calls))
    return calls[order], order if isinstance(part, slice) else np.flatnonzero(part)[order]


def _equal(values: np.ndarray, one: int) -> np.ndarray | slice:
    """Where `values` are `one`: a selection that copies nothing where everything is selected."""
    return slice(None) if len(values) and values.min() == one == values.max() else values == one


@dataclass(frozen=True)
class Calls:
    """The calls of each thread, one after the other: a nested call belongs to the one around it.

    start_ns, end_ns, cause [calls] are ordered by thread and time, thread t's from first[t] to first[t + 1];
    so are the rows of the profiler's overhead, whose own times are merged.
    """

    thread: np.ndarray  # number of the thread of each row of trace.api
    start_ns: Ints
    end_ns: Ints
    cause: np.ndarray
    first: Ints
    overhead_start_ns: Ints
    overhead_end_ns: Ints
    overhead_first: Ints

    @classmethod
    def of(cls, api: pd.DataFrame, overhead: pd.DataFrame, cause_of: Callable[[str], int]) -> Calls:
        thread = api["thread"].array.codes
        threads = api["thread"].cat.categories.to_numpy()
        causes = np.array([cause_of(name) for name in api["name"].cat.categories], dtype=np.int8)
        start, end = api["start_ns"].to_numpy(), api["end_ns"].to_numpy()
        cause = causes[api["name"].array.codes]
        flat = _flattened(thread, start, end)
        if flat is not None:
            kept, start = flat
            first = np.searchsorted(thread[kept], np.arange(len(threads) + 1))
            end, cause = end[kept], cause[kept]
        else:
            first = np.searchsorted(thread, np.arange(len(threads) + 1))
        return cls(thread, start, end, cause, first, *_merged_overhead(overhead, threads))

    def between(self, thread: Ints, start: Ints, end: Ints) -> tuple[Ints, Ints]:
        """Rows [first, last) of the calls of each thread that reach into [start, end)."""
        return _between(self.start_ns, self.end_ns, self.first, thread, start, end)

    def overhead_between(self, thread: Ints, start: Ints, end: Ints) -> tuple[Ints, Ints]:
        """The same for the profiler's overhead."""
        rows = self.overhead_start_ns, self.overhead_end_ns, self.overhead_first
        return _between(*rows, thread, start, end)


def _between(
    row_start: Ints, row_end: Ints, row_first: Ints, thread: Ints, start: Ints, end: Ints
) -> tuple[Ints, Ints]:
    first, last = np.zeros((2, len(thread)), dtype=np.int64)
    if len(row_start) == 0:
        return first, last
    for one in np.unique(thread[thread >= 0]):
        mine = _equal(thread, one)
        low, high = row_first[one], row_first[one + 1]
        first[mine] = low + np.searchsorted(row_end[low:high], start[mine], side="right")
        last[mine] = low + np.searchsorted(row_start[low:high], end[mine], side="left")
    return first, np.maximum(first, last)


def _flattened(thread: np.ndarray, start: Ints, end: Ints) -> tuple[Ints, Ints] | None:
    """(rows that are kept, their starts) where calls of a thread overlap; None if none do."""
    overlap = (thread[1:] == thread[:-1]) & (start[1:] < end[:-1])
    if not overlap.any():
        return None
    begins = start.copy()
    for one in np.unique(thread[1:][overlap]):
        low, high = np.searchsorted(thread, [one, one + 1])
        until = np.maximum.accumulate(end[low:high])
        begins[low + 1 : high] = np.maximum(begins[low + 1 : high], until[:-1])
    kept = np.flatnonzero(end > begins)
    return kept, begins[kept]


def _merged_overhead(overhead: pd.DataFrame, threads: np.ndarray) -> tuple[Ints, Ints, Ints]:
    """Times of the profiler's own work on each thread; rows that name no thread hold for all of a process."""
    starts, ends, first = [], [], [0]
    for thread in threads.tolist():
        mine = overhead["thread"] == thread
        mine |= (overhead["thread"] == -1) & (overhead["process"] == thread & ~THREAD_BITS)
        part = overhead[mine & (overhead["end_ns"] > overhead["start_ns"])].sort_values("start_ns")
        start, end = part["start_ns"].to_numpy(), part["end_ns"].to_numpy()
        until = np.maximum.accumulate(end)
        fresh = np.append(True, start[1:] > until[:-1])[: len(start)]
        last = np.append(fresh[1:], True)[: len(start)]
        starts.append(start[fresh])
        ends.append(until[last])
        first.append(first[-1] + int(fresh.sum()))
    empty = np.empty(0, dtype=np.int64)
    return np.concatenate([empty, *starts]), np.concatenate([empty, *ends]), np.array(first)


def launch_waits(trace: Trace, gaps: Gaps, launch: Codes) -> np.ndarray:
    """Whether the work that ends each gap was launched behind a wait for an event: shape [gaps].

    The evidence is a recorded wait on the work's own stream, called between the launch of that stream's
    previous work and the work's own launch.
    """
    waits, work = trace.waits, trace.work
    found = np.zeros(len(gaps), dtype=bool)
    if len(waits) == 0 or trace.api.empty:
        return found
    calls = waits.assign(process=pd.Categorical(waits["process"]))
    row = match_launches(calls, trace.api)
    names = trace.api["name"].cat.categories
    is_wait = np.array([bool(re.search(r"StreamWait", name)) for name in names])
    waits = waits[(row >= 0) & is_wait[trace.api["name"].array.codes[row]]]
    if waits.empty:
        return found
    start = np.append(trace.api["start_ns"].to_numpy(), np.iinfo(np.int64).min)
    lanes = Groups()
    of_work = lanes.encode(*(work[name].to_numpy(np.int64) for name in ("process", "context", "stream")))
    of_wait = lanes.encode(*(waits[name].to_numpy(np.int64) for name in ("process", "context", "stream")))
    previous = _previous(of_work, work["start_ns"].to_numpy())
    ending = np.flatnonzero(gaps.after >= 0)
    after = gaps.after[ending]
    since, until = start[np.append(launch, -1)[previous[after]]], start[launch[after]]
    for lane in np.unique(of_wait):
        mine = np.flatnonzero((of_work[after] == lane) & (launch[after] >= 0))
        times = np.sort(waits["start_ns"].to_numpy()[of_wait == lane])
        waited = np.searchsorted(times, until[mine]) > np.searchsorted(times, since[mine], side="right")
        found[ending[mine]] = waited
    return found


def _previous(lane: Codes, start: Ints) -> Ints:
    """The row before each in its lane by start, -1 for the first."""
    order = np.lexsort((start, lane))
    previous = np.full(len(lane), -1, dtype=np.int64)
    same = lane[order][1:] == lane[order][:-1]
    previous[order[1:]] = np.where(same, order[:-1], -1)
    return previous
