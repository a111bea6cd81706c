"""Write small databases that look like nsys exports, with times that a test chooses."""

from __future__ import annotations

import random
import sqlite3
from dataclasses import dataclass, field
from pathlib import Path

DDL = """
CREATE TABLE StringIds (id INTEGER PRIMARY KEY, value TEXT);
CREATE TABLE META_DATA_EXPORT (name TEXT, value TEXT);
CREATE TABLE CUPTI_ACTIVITY_KIND_KERNEL (start INTEGER, end INTEGER, deviceId INTEGER, contextId INTEGER,
    streamId INTEGER, correlationId INTEGER, globalPid INTEGER, demangledName INTEGER, graphNodeId INTEGER);
CREATE TABLE CUPTI_ACTIVITY_KIND_MEMCPY (start INTEGER, end INTEGER, deviceId INTEGER, contextId INTEGER,
    streamId INTEGER, correlationId INTEGER, globalPid INTEGER, copyKind INTEGER, graphNodeId INTEGER);
CREATE TABLE CUPTI_ACTIVITY_KIND_GRAPH_TRACE (start INTEGER, end INTEGER, deviceId INTEGER, contextId INTEGER,
    streamId INTEGER, correlationId INTEGER, globalPid INTEGER, graphId INTEGER, graphExecId INTEGER);
CREATE TABLE CUPTI_ACTIVITY_KIND_RUNTIME (start INTEGER, end INTEGER, globalTid INTEGER,
    correlationId INTEGER, nameId INTEGER);
CREATE TABLE NVTX_EVENTS (start INTEGER, end INTEGER, eventType INTEGER, text TEXT, textId INTEGER,
    globalTid INTEGER, endGlobalTid INTEGER, domainId INTEGER, int64Value INTEGER);
"""


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
        self, start: int, end: int, correlation: int, *, name: str = "kernel_a", device: int = 0,
        stream: int = 7, pid: int = 1, node: int | None = None, vm: int = 1,
    ) -> None:  # fmt: skip
        where = (start, end, device, 1, stream, correlation, global_tid(pid, vm=vm))
        self._add("CUPTI_ACTIVITY_KIND_KERNEL", (*where, self.text(name), node))

    def memcpy(self, start: int, end: int, correlation: int, *, kind: int = 1, stream: int = 7) -> None:
        self._add(
            "CUPTI_ACTIVITY_KIND_MEMCPY", (start, end, 0, 1, stream, correlation, global_tid(1), kind, None)
        )

    def graph(self, start: int, end: int, correlation: int, *, graph: int = 1) -> None:
        where = (start, end, 0, 1, 7, correlation, global_tid(1))
        self._add("CUPTI_ACTIVITY_KIND_GRAPH_TRACE", (*where, graph, graph))

    def call(
        self, start: int, end: int, correlation: int, *, name: str = "cudaLaunchKernel_v7000", pid: int = 1,
        thread: int = 1, vm: int = 1,
    ) -> None:  # fmt: skip
        thread_id = global_tid(pid, thread, vm)
        self._add("CUPTI_ACTIVITY_KIND_RUNTIME", (start, end, thread_id, correlation, self.text(name)))

    def domain(self, name: str, domain: int = 1, *, pid: int = 1, vm: int = 1) -> None:
        self._add("NVTX_EVENTS", (0, None, 75, name, None, global_tid(pid, 1, vm), None, domain, None))

    def range(
        self, name: str, start: int, end: int | None, *, domain: int = 1, pid: int = 1, thread: int = 1,
        registered: bool = False, kind: int = 59, payload: int | None = None, vm: int = 1,
    ) -> None:  # fmt: skip
        text, text_id = (None, self.text(name)) if registered else (name, None)
        owner = global_tid(pid, thread, vm)
        self._add("NVTX_EVENTS", (start, end, kind, text, text_id, owner, None, domain, payload))

    def write(self, path: Path, shuffle: int | None = None) -> Path:
        """Store the rows, in an order of their own for each `shuffle`."""
        path.unlink(missing_ok=True)
        database = sqlite3.connect(path)
        database.executescript(DDL)
        database.executemany("INSERT INTO StringIds VALUES (?, ?)", [(i, s) for s, i in self.strings.items()])
        database.execute("INSERT INTO META_DATA_EXPORT VALUES ('EXPORT_PRODUCT_VERSION', '2025.3.2.0')")
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            rows = list(self.rows.get(table, []))
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
