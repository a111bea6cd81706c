"""Write small databases that look like nsys exports, with times that a test chooses."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

DDL = """
CREATE TABLE StringIds (id INTEGER PRIMARY KEY, value TEXT);
CREATE TABLE META_DATA_EXPORT (name TEXT, value TEXT);
CREATE TABLE CUPTI_ACTIVITY_KIND_KERNEL (start INTEGER, end INTEGER, deviceId INTEGER, contextId INTEGER,
    streamId INTEGER, correlationId INTEGER, globalPid INTEGER, demangledName INTEGER, graphNodeId INTEGER,
    gridX INTEGER, gridY INTEGER, gridZ INTEGER, blockX INTEGER, blockY INTEGER, blockZ INTEGER);
CREATE TABLE CUPTI_ACTIVITY_KIND_MEMCPY (start INTEGER, end INTEGER, deviceId INTEGER, contextId INTEGER,
    streamId INTEGER, correlationId INTEGER, globalPid INTEGER, copyKind INTEGER, graphNodeId INTEGER);
CREATE TABLE CUPTI_ACTIVITY_KIND_MEMSET (start INTEGER, end INTEGER, deviceId INTEGER, contextId INTEGER,
    streamId INTEGER, correlationId INTEGER, globalPid INTEGER, graphNodeId INTEGER);
CREATE TABLE CUPTI_ACTIVITY_KIND_GRAPH_TRACE (start INTEGER, end INTEGER, deviceId INTEGER, contextId INTEGER,
    streamId INTEGER, correlationId INTEGER, globalPid INTEGER, graphId INTEGER, graphExecId INTEGER);
CREATE TABLE CUPTI_ACTIVITY_KIND_RUNTIME (start INTEGER, end INTEGER, globalTid INTEGER,
    correlationId INTEGER, nameId INTEGER);
CREATE TABLE CUPTI_ACTIVITY_KIND_SYNCHRONIZATION (start INTEGER, end INTEGER, deviceId INTEGER,
    contextId INTEGER, streamId INTEGER, correlationId INTEGER, globalPid INTEGER, syncType INTEGER,
    eventId INTEGER);
CREATE TABLE PROFILER_OVERHEAD (start INTEGER, end INTEGER, globalTid INTEGER, nameId INTEGER,
    returnValue INTEGER);
CREATE TABLE CUPTI_ACTIVITY_KIND_OVERHEAD (start INTEGER, end INTEGER, globalTid INTEGER, globalPid INTEGER);
CREATE TABLE NVTX_EVENTS (start INTEGER, end INTEGER, eventType INTEGER, text TEXT, textId INTEGER,
    globalTid INTEGER, endGlobalTid INTEGER, domainId INTEGER, int64Value INTEGER);
"""
STREAM_WAIT_EVENT = 2  # ENUM_CUPTI_SYNC_TYPE
START_END = 60  # ENUM_NSYS_EVENT_TYPE


def global_tid(pid: int, thread: int = 0, vm: int = 1) -> int:
    """nsys packs VM, process and thread into one signed 64-bit number."""
    packed = vm << 48 | pid << 24 | thread
    return packed - (1 << 64) if packed >= 1 << 63 else packed


@dataclass
class Export:
    """Rows by table; `write` stores them (tables without rows are left out, as nsys does)."""

    rows: dict[str, list[tuple[object, ...]]] = field(default_factory=dict)
    strings: dict[str, int] = field(default_factory=dict)

    def text(self, value: str) -> int:
        return self.strings.setdefault(value, len(self.strings))

    def kernel(
        self, start: int, end: int, correlation: int | None, *, name: str = "kernel_a", device: int = 0,
        stream: int = 7, pid: int = 1, node: int | None = None, vm: int = 1, context: int = 1,
        grid: tuple[int, int, int] = (1, 1, 1), block: tuple[int, int, int] = (128, 1, 1),
    ) -> None:  # fmt: skip
        where = (start, end, device, context, stream, correlation, global_tid(pid, vm=vm))
        self._add("CUPTI_ACTIVITY_KIND_KERNEL", (*where, self.text(name), node, *grid, *block))

    def memcpy(
        self, start: int, end: int, correlation: int | None, *, kind: int = 1, stream: int = 7,
        device: int = 0, pid: int = 1, vm: int = 1, context: int = 1,
    ) -> None:  # fmt: skip
        where = (start, end, device, context, stream, correlation, global_tid(pid, vm=vm))
        self._add("CUPTI_ACTIVITY_KIND_MEMCPY", (*where, kind, None))

    def memset(
        self, start: int, end: int, correlation: int | None, *, stream: int = 7, device: int = 0,
        pid: int = 1, vm: int = 1, context: int = 1,
    ) -> None:  # fmt: skip
        where = (start, end, device, context, stream, correlation, global_tid(pid, vm=vm))
        self._add("CUPTI_ACTIVITY_KIND_MEMSET", (*where, None))

    def graph(
        self, start: int, end: int, correlation: int | None, *, graph: int = 1, stream: int = 7,
        device: int = 0, pid: int = 1, vm: int = 1, context: int = 1,
    ) -> None:  # fmt: skip
        where = (start, end, device, context, stream, correlation, global_tid(pid, vm=vm))
        self._add("CUPTI_ACTIVITY_KIND_GRAPH_TRACE", (*where, graph, graph))

    def call(
        self, start: int, end: int, correlation: int | None, *, name: str = "cudaLaunchKernel_v7000",
        pid: int = 1, thread: int = 1, vm: int = 1,
    ) -> None:  # fmt: skip
        thread_id = global_tid(pid, thread, vm)
        self._add("CUPTI_ACTIVITY_KIND_RUNTIME", (start, end, thread_id, correlation, self.text(name)))

    def wait(
        self, start: int, end: int, *, stream: int = 7, device: int = 0, pid: int = 1, vm: int = 1,
        context: int = 1, kind: int = STREAM_WAIT_EVENT, correlation: int | None = None,
    ) -> None:  # fmt: skip
        """A synchronisation; by default the stream waits for an event of another."""
        where = (start, end, device, context, stream, correlation, global_tid(pid, vm=vm))
        self._add("CUPTI_ACTIVITY_KIND_SYNCHRONIZATION", (*where, kind, 1))

    def overhead(self, start: int, end: int, *, pid: int = 1, thread: int = 1, vm: int = 1) -> None:
        """The profiler's own work; thread 0: rows of newer versions that name a process only."""
        if thread:
            name = self.text("CUPTI flush activity buffers")
            self._add("PROFILER_OVERHEAD", (start, end, global_tid(pid, thread, vm), name, 0))
        else:
            self._add("CUPTI_ACTIVITY_KIND_OVERHEAD", (start, end, None, global_tid(pid, vm=vm)))

    def domain(self, name: str, domain: int = 1, *, pid: int = 1, vm: int = 1) -> None:
        self._add("NVTX_EVENTS", (0, None, 75, name, None, global_tid(pid, 1, vm), None, domain, None))

    def range(
        self, name: str, start: int, end: int | None, *, domain: int = 1, pid: int = 1, thread: int = 1,
        registered: bool = False, kind: int = 59, payload: int | None = None, vm: int = 1,
        end_thread: int | None = None,
    ) -> None:  # fmt: skip
        text, text_id = (None, self.text(name)) if registered else (name, None)
        owner = global_tid(pid, thread, vm)
        closer = None if end_thread is None else global_tid(pid, end_thread, vm)
        self._add("NVTX_EVENTS", (start, end, kind, text, text_id, owner, closer, domain, payload))

    def write(self, path: Path, shuffle: int | None = None, without: Collection[str] = ()) -> Path:
        """Store the rows, in an order of their own for each `shuffle`; `without` are tables to leave out."""
        path.unlink(missing_ok=True)
        database = sqlite3.connect(path)
        database.executescript(f"PRAGMA synchronous = OFF; {DDL}")
        database.executemany("INSERT INTO StringIds VALUES (?, ?)", [(i, s) for s, i in self.strings.items()])
        database.execute("INSERT INTO META_DATA_EXPORT VALUES ('EXPORT_PRODUCT_VERSION', '2025.3.2.0')")
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            rows = [] if table in without else list(self.rows.get(table, []))
            if shuffle is not None:
                random.Random(shuffle).shuffle(rows)
            if rows:
                marks = ", ".join("?" * len(rows[0]))
                database.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)
            elif table not in ("StringIds", "META_DATA_EXPORT"):
                database.execute(f"DROP TABLE {table}")
        database.commit()
        database.close()
        return path

    def _add(self, table: str, row: tuple[object, ...]) -> None:
        self.rows.setdefault(table, []).append(row)


def launches(name: str, count: int = 3) -> Export:
    """Kernels of 10 µs, each launched after 20 µs of host code by a call of 5 µs that returns 1 µs early."""
    export = Export()
    for number in range(count):
        at = 36_000 * number
        export.call(at + 20_000, at + 25_000, number)
        export.kernel(at + 26_000, at + 36_000, number, name=name.format(number))
    return export
