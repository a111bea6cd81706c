"""What a Perfetto trace shows: threads of each process; idle time, counters and streams of each GPU."""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import pandas as pd
from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import (
    CounterDescriptor,
    ProcessDescriptor,
    ThreadDescriptor,
)

from analysis.accounting.account import Account
from analysis.accounting.host import match_launches
from analysis.accounting.kernels import shorten
from analysis.engine.compiled import loop_for
from analysis.engine.grouping import Codes
from analysis.engine.intervals import Ints
from analysis.errors import TraceError
from analysis.memory.samples import Samples
from analysis.perfetto.packets import PacketWriter
from analysis.reading import schema
from analysis.reading.trace import Trace

_GAPS = 100_000  # cut into their causes at once
_GZIP_LEVEL = 1  # packets repeat themselves: higher levels take much longer and save little
_IDLE_RANK, _COUNTER_RANK, _STREAM_RANK = 0, 1, 100
_ABBREVIATIONS = {"dram": "DRAM", "sm": "SM", "gr": "GR"}


def write(trace: Trace, acc: Account, path: str | Path, samples: Sequence[Samples] = ()) -> Path:
    """Write the trace for https://ui.perfetto.dev, with counters where there are samples of GPU metrics.

    `samples` have to be the trace's own (see `analysis.memory.aligned`): each recording has its own timeline.
    A path that ends in `.gz` is compressed; the viewer opens both. Returns the path. Memory beyond that of
    trace and account: some 60 bytes per slice. TraceError for a trace with nothing to draw.
    """
    path = Path(path)
    if not any(len(table) for table in (trace.work, trace.api, trace.ranges)):
        raise TraceError(
            f"{trace.path} holds no GPU work, no CUDA calls and no NVTX ranges: nothing to draw",
            "record with `nsys profile --trace=cuda,nvtx`",
        )
    launch = match_launches(trace.work, trace.api)
    with _opened(path) as file:
        writer = PacketWriter(file)
        _hosts(writer, trace, launch)
        _gpus(writer, trace, acc, launch, samples)
    return path


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    with path.open("wb") as file:
        if path.suffix != ".gz":
            yield file
            return
        # Neither name nor time of writing: the same trace gives the same file.
        with gzip.GzipFile("", "wb", _GZIP_LEVEL, file, mtime=0) as packed:
            yield cast(BinaryIO, packed)


def _hosts(writer: PacketWriter, trace: Trace, launch: Codes) -> None:
    """A track per thread, its NVTX ranges around its CUDA calls."""
    api, ranges = trace.api, trace.ranges
    launches = np.zeros(len(api) + 1, dtype=bool)
    launches[launch] = True  # the last, for -1, is no call
    none = np.empty(0, dtype=np.int64)
    calls_of = cast(dict[int, Ints], api.groupby("thread", observed=True).indices)
    ranges_of = cast(dict[int, Ints], ranges.groupby("thread").indices)
    threads = _numbered(np.array(list({*calls_of, *ranges_of}), dtype=np.int64))
    for process in threads["process"].unique().tolist():
        mine = threads[threads["process"] == process]
        pid = int(mine["pid"].iloc[0])
        parent = writer.track(process=ProcessDescriptor(pid=pid, process_name=f"process {_pid(process)}"))
        for thread, tid in zip(mine["thread"].tolist(), mine["tid"].tolist(), strict=True):
            name = f"thread {thread & schema.THREAD_BITS}"
            track = writer.track(parent=parent, thread=ThreadDescriptor(pid=pid, tid=tid, thread_name=name))
            calls = _Calls(api, calls_of.get(thread, none), launches)
            _thread(writer, track, calls, ranges.iloc[ranges_of.get(thread, none)])


def _numbered(threads: Ints) -> pd.DataFrame:
    """thread, process, pid, tid: as the system numbered them, told apart where machines share a number."""
    threads = np.sort(threads)
    table = pd.DataFrame({"thread": threads, "process": threads & ~schema.THREAD_BITS})
    pid = table["process"].map(_pid)
    machine = table.groupby(pid)["process"].rank("dense").astype(np.int64) - 1
    offset = machine * (1 << schema.PID_SHIFT)  # both numbers have that many bits
    return table.assign(pid=pid + offset, tid=(threads & schema.THREAD_BITS) + offset)


def _pid(process: int) -> int:
    return process >> schema.PID_SHIFT & schema.PID_BITS


class _Calls:
    """The CUDA calls of one thread: rows of trace.api, and which calls launched work."""

    def __init__(self, api: pd.DataFrame, rows: Ints, launches: np.ndarray) -> None:
        self._api, self._rows, self._launches = api, rows, launches
        self.start_ns = api["start_ns"].to_numpy()[rows]
        self.end_ns = api["end_ns"].to_numpy()[rows]

    def describe(self, which: Ints) -> pd.DataFrame:
        rows = self._rows[which]
        calls = self._api.iloc[rows]
        flow = pd.Series(rows + 1, index=calls.index, dtype="Int64")
        return pd.DataFrame(
            {
                "name": calls["name"],
                "category": "CUDA call",
                "flow_begins": flow.where(self._launches[rows]),
                "correlation": _known(calls["correlation"]),
            }
        )


def _thread(writer: PacketWriter, track: int, calls: _Calls, ranges: pd.DataFrame) -> None:
    """Ranges and calls nest; a range that overlaps another only in part goes to a track below."""
    start = np.concatenate([ranges["start_ns"].to_numpy(), calls.start_ns])
    end = np.concatenate([ranges["end_ns"].to_numpy(), calls.end_ns])
    order = np.lexsort((np.arange(len(start)), -end, start))  # of equal ones, ranges around calls
    start, end = start[order], end[order]
    lane = _lanes(start, end, nested=True)
    for one in range(int(lane.max()) + 1):
        rows = np.flatnonzero(lane == one)

        def describe(which: Ints, rows: Ints = rows) -> pd.DataFrame:
            source = order[rows[which]]
            called = source >= len(ranges)
            parts = [_described(ranges.iloc[source[~called]]), calls.describe(source[called] - len(ranges))]
            place = np.argsort(np.argsort(called, kind="stable"))  # in `parts`, where the ranges come first
            return pd.concat(parts).iloc[place].astype({"name": "category", "category": "category"})

        below = writer.track("overlapping ranges", parent=track, rank=one) if one else track
        writer.slices(below, start[rows], end[rows], describe)


def _described(ranges: pd.DataFrame) -> pd.DataFrame:
    domain = ranges["domain"].map(lambda name: name or "NVTX")  # perhaps two of that name, and no categories
    return pd.DataFrame({"name": ranges["name"], "category": domain, "payload": ranges["payload"]})


def _gpus(
    writer: PacketWriter, trace: Trace, acc: Account, launch: Codes, samples: Sequence[Samples]
) -> None:
    names = dict(zip(acc.devices["device"].tolist(), acc.devices["name"].tolist(), strict=True))
    grouped = trace.work.groupby(["device", "process", "context", "stream"], observed=True).indices
    streams = sorted(cast(dict[tuple[int, int, int, int], Ints], grouped).items())
    several = len({key[1:3] for key, _ in streams}) > 1
    work = _Work(trace.work, launch)
    for device in sorted({key[0] for key, _ in streams}):
        title = " · ".join(filter(None, [f"GPU {device}", names.get(device, "")]))
        parent = writer.track(title, rank=device)
        _idle(writer, parent, acc, np.flatnonzero(acc.gaps["device"].to_numpy() == device))
        for sampled in samples:
            if sampled.device == device:
                _counters(writer, parent, sampled)
        for rank, ((on, process, context, stream), rows) in enumerate(streams, _STREAM_RANK):
            if on == device:
                of = f" · process {_pid(process)}, context {context}" if several else ""
                _stream(writer, f"stream {stream}{of}", parent, rank, work, rows)


def _idle(writer: PacketWriter, device: int, acc: Account, gaps: Ints) -> None:
    """The gaps, cut where their cause changes."""
    track = writer.track("GPU idle (by cause)", device, _IDLE_RANK)
    for first in range(0, len(gaps), _GAPS):
        parts = acc.segments(gaps[first : first + _GAPS])

        def describe(which: Ints, parts: pd.DataFrame = parts) -> pd.DataFrame:
            chosen = parts.iloc[which].reset_index(drop=True)
            gap = acc.gaps.iloc[chosen["gap"].to_numpy()].reset_index(drop=True)
            return pd.DataFrame(
                {
                    "name": chosen["cause"],
                    "category": chosen["cause"],
                    "phase": gap["phase"],
                    "before": gap["before"],
                    "after": gap["after"],
                    "ended by": gap["api"],
                    "gap_ns": gap["dur_ns"].astype("Int64"),
                }
            )

        writer.slices(track, parts["start_ns"].to_numpy(), parts["end_ns"].to_numpy(), describe)


class _Work:
    """The work of all streams; rows are those of trace.work."""

    def __init__(self, work: pd.DataFrame, launch: Codes) -> None:
        self._work, self._launch = work, launch
        self._first = ~pd.Series(launch).duplicated().to_numpy() & (launch >= 0)
        self._short = shorten(work["name"])
        self.start_ns, self.end_ns = work["start_ns"].to_numpy(), work["end_ns"].to_numpy()

    def describe(self, rows: Ints) -> pd.DataFrame:
        """A call's arrow leads to the first piece of work that it launched."""
        part = self._work.iloc[rows].reset_index(drop=True)
        flow = pd.Series(self._launch[rows].astype(np.int64) + 1, dtype="Int64")
        return pd.DataFrame(
            {
                "name": self._short[rows],
                "category": part["kind"],
                "flow_ends": flow.where(self._first[rows]),
                "correlation": _known(part["correlation"]),
                "graph node": part["graph_node"].astype("Int64"),
                "grid x block": part["shape"].where(part["shape"] != ""),
                "full name": part["name"],
            }
        )


def _stream(writer: PacketWriter, name: str, device: int, rank: int, work: _Work, rows: Ints) -> None:
    """Work of one stream. What overlaps there (graphs, programmatic launches) goes to lanes of its own."""
    start, end = work.start_ns[rows], work.end_ns[rows]
    lane = _lanes(start, end, nested=False)
    for one in range(int(lane.max()) + 1):
        mine = rows[lane == one]

        def describe(which: Ints, mine: Ints = mine) -> pd.DataFrame:
            return work.describe(mine[which])

        writer.slices(writer.track(name, device, rank), start[lane == one], end[lane == one], describe)


def _counters(writer: PacketWriter, device: int, samples: Samples) -> None:
    for rank, (metric, values) in enumerate(samples.values.items(), _COUNTER_RANK):
        words = metric.removesuffix("_pct").split("_")
        name = " ".join([*(_ABBREVIATIONS.get(word, word) for word in words), "%"])
        track = writer.track(name, device, rank, counter=CounterDescriptor(unit_name="%"))
        known = np.isfinite(values) & (samples.start_ns >= 0)  # Perfetto has no time before a trace's zero
        writer.counter(track, samples.start_ns[known], values[known])


def _known(numbers: pd.Series) -> pd.Series:
    """NA for the -1 of what a trace doesn't say."""
    return numbers.astype("Int64").where(numbers >= 0)


def _lanes(start: Ints, end: Ints, nested: bool) -> Ints:
    """A lane for each interval, sorted by start (and falling end, if nested), so that within a lane none
    overlap; if `nested`, one may lie within another there. Always the first lane that allows it."""
    return loop_for(_fill_lanes, len(start))(start, end, nested)


def _fill_lanes(start: Ints, end: Ints, nested: bool) -> Ints:
    count = len(start)
    lane = np.zeros(count, dtype=np.int64)
    around = np.full(count, -1, dtype=np.int64)  # the interval of the same lane that this one lies in
    innermost = np.full(count, -1, dtype=np.int64)  # open interval of each lane
    for row in range(count):
        for one in range(count):
            outer = innermost[one]
            while outer >= 0 and end[outer] <= start[row]:
                outer = around[outer]
            if outer < 0 or (nested and end[row] <= end[outer]):
                lane[row], around[row], innermost[one] = one, outer, row
                break
    return lane
