"""Write an export as large as wanted, like nsys 2025.3's, together with what an analysis of it has to find.

The tables, names, grids and metadata are those of a real export (`tests/data`); the times are drawn. One
thread launches; every 120 kernels (an encoder, a prefill or a decode step) it waits for the device, as one
that reads a token back does, so that each step starts on an empty device and all steps can be computed at
once. A third of the steps keep the device busy, the others keep it waiting; three streams overlap.
"""

from __future__ import annotations

import argparse
import json
import lzma
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt

REAL_EXPORT = Path(__file__).parents[1] / "tests" / "data" / "h200_eager_2025.3.sqlite.xz"
STEP_KERNELS = 120
STEPS = ("encode", "prefill", *("decode.step",) * 8)  # of one iteration; with iter and decode 12 ranges
CHUNK_ITERATIONS = 100  # 120 k kernels in memory at a time
STREAMS = (7, 7, 13, 7, 7, 14, 7, 7)  # of a step's kernels, over and over
NAMES = 50
HARNESS_DOMAIN, RANGE_EVENT = 1, 59
SYNC_TYPE_STREAM = 3

Ints = npt.NDArray[np.int64]


@dataclass
class Truth:
    """What was written, and what follows from it: one device, one process, one launching thread."""

    kernels: int = 0
    api_calls: int = 0  # one launch per kernel, one cudaStreamSynchronize per step
    ranges: int = 0
    window_ns: tuple[int, int] = (0, 0)  # of the outermost iterations
    busy_ns: int = 0  # at least one kernel runs
    idle_ns: int = 0
    gaps: int = 0

    def add(self, start: Ints, end: Ints) -> None:
        """Count kernels that start after all those of earlier calls have ended; the window ends with them."""
        order = np.argsort(start)
        idle_since = np.maximum.accumulate(np.append(self.window_ns[1], end[order]))
        waits = np.maximum(start[order] - idle_since[:-1], 0)
        self.kernels += len(start)
        self.gaps += int(np.count_nonzero(waits))
        self.idle_ns += int(waits.sum())
        self.busy_ns += int(idle_since[-1] - idle_since[0] - waits.sum())
        self.window_ns = self.window_ns[0], int(idle_since[-1])

    def close(self, end_ns: int) -> None:
        """The window lasts until `end_ns`, when the device has been idle since the last kernel."""
        self.idle_ns += end_ns - self.window_ns[1]
        self.gaps += int(end_ns > self.window_ns[1])
        self.window_ns = self.window_ns[0], end_ns


@dataclass(frozen=True)
class Steps:
    """Some steps in a row. Kernels: shape [steps, STEP_KERNELS], ns; steps: shape [steps], ns."""

    call_start: Ints
    call_end: Ints
    start: Ints
    end: Ints
    sync_start: Ints
    sync_end: Ints
    begin: Ints
    finish: Ints


def draw_steps(rng: np.random.Generator, steps: int, begin_ns: int) -> Steps:
    """The times of steps that begin at `begin_ns`: each launches, waits for the device and thinks."""
    shape = (steps, STEP_KERNELS)
    think = rng.gamma(2.0, 1500, shape).astype(np.int64) + 300
    call = rng.gamma(4.0, 700, shape).astype(np.int64) + 900
    call_end = np.cumsum(think + call, axis=1)
    load = np.where(rng.random((steps, 1)) < 0.3, 6.0, 1.0)  # a third of the steps are limited by the device
    duration = (rng.lognormal(7.6, 0.8, shape) * load).astype(np.int64) + 700
    ready = call_end + rng.integers(600, 2500, shape)
    start, end = np.empty(shape, dtype=np.int64), np.empty(shape, dtype=np.int64)
    stream = np.resize(STREAMS, STEP_KERNELS)
    for one in set(STREAMS):
        mine = stream == one
        # First in, first out: end[i] = max(ready[i], end[i-1]) + duration[i], as one running maximum.
        worked = np.cumsum(duration[:, mine], axis=1)
        end[:, mine] = worked + np.maximum.accumulate(ready[:, mine] - worked + duration[:, mine], axis=1)
        start[:, mine] = end[:, mine] - duration[:, mine]
    sync_start = call_end[:, -1] + 400
    sync_end = np.maximum(end.max(axis=1), sync_start) + rng.integers(1500, 4000, steps)
    length = sync_end + rng.integers(2000, 30_000, steps)
    begin = begin_ns + np.cumsum(length) - length
    at = begin[:, None]
    return Steps(
        call_end - call + at, call_end + at, start + at, end + at, sync_start + begin, sync_end + begin,
        begin, begin + length,
    )  # fmt: skip


class Writer:
    """The event tables of one export, with the identities that nsys gives rows."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self.database = database
        self.written = 0
        self.calls = 0
        self.shapes = database.execute(
            "SELECT demangledName, shortName, mangledName, launchType, cacheConfig, registersPerThread,"
            " gridX, gridY, gridZ, blockX, blockY, blockZ, staticSharedMemory, dynamicSharedMemory,"
            " localMemoryPerThread, localMemoryTotal FROM real.CUPTI_ACTIVITY_KIND_KERNEL"
            " GROUP BY demangledName, gridX ORDER BY count(*) DESC LIMIT ?", (NAMES,)
        ).fetchall()  # fmt: skip
        launch = "FROM real.CUPTI_ACTIVITY_KIND_RUNTIME JOIN StringIds ON id = nameId WHERE value LIKE ?"
        (self.tid, self.launch_id) = database.execute(
            f"SELECT globalTid, nameId {launch}", ("cudaLaunchKernel%",)
        ).fetchone()
        (self.sync_id,) = database.execute(f"SELECT nameId {launch}", ("cudaStreamSync%",)).fetchone()
        self.pid = self.tid & ~0xFFFFFF

    def write(self, steps: Steps, kernels: int, rng: np.random.Generator) -> None:
        """Kernels, calls and waits of these steps; only the first `kernels` are launched."""
        count = len(steps.begin)
        first = self.calls + 1
        column = np.arange(kernels)
        correlation = first + column + column // STEP_KERNELS  # each step's wait takes one, too
        sync_correlation = first + np.arange(count) * (STEP_KERNELS + 1) + STEP_KERNELS
        self.calls += kernels + count
        start, end = steps.start.ravel()[:kernels].tolist(), steps.end.ravel()[:kernels].tolist()
        stream = np.resize(np.resize(STREAMS, STEP_KERNELS), kernels).tolist()
        shape = rng.integers(0, len(self.shapes), kernels).tolist()
        ids = correlation.tolist()
        self._insert("KERNEL", (
            (s, e, 0, 1, 0, on, id_, self.pid, *self.shapes[kind], 40_000 + id_, 32768, None, 0)
            for s, e, on, id_, kind in zip(start, end, stream, ids, shape, strict=True)
        ))  # fmt: skip
        begun = steps.call_start.ravel()[:kernels].tolist()
        returned = steps.call_end.ravel()[:kernels].tolist()
        self._insert("RUNTIME", (
            (s, e, 1, self.tid, id_, self.launch_id, 0, None)
            for s, e, id_ in zip(begun, returned, ids, strict=True)
        ))  # fmt: skip
        waits = list(zip(
            steps.sync_start.tolist(), steps.sync_end.tolist(), sync_correlation.tolist(), strict=True
        ))  # fmt: skip
        self._insert("RUNTIME", ((s, e, 1, self.tid, id_, self.sync_id, 0, None) for s, e, id_ in waits))
        self._insert("SYNCHRONIZATION", (
            (s, e, 0, 1, 0, STREAMS[0], id_, self.pid, SYNC_TYPE_STREAM, SYNC_TYPE_STREAM, 0, None)
            for s, e, id_ in waits
        ))  # fmt: skip

    def ranges(self, steps: Steps) -> int:
        """iter > encode, prefill, decode > decode.step; the number of ranges."""
        rows = list(_ranges(steps.begin.tolist(), steps.finish.tolist()))
        self.database.executemany(
            'INSERT INTO NVTX_EVENTS (start, "end", eventType, text, globalTid, domainId, uint64Value)'
            f" VALUES (?, ?, {RANGE_EVENT}, ?, {self.tid}, {HARNESS_DOMAIN}, 0)", rows
        )  # fmt: skip
        return len(rows)

    def _insert(self, kind: str, rows: Iterator[tuple[object, ...]]) -> None:
        table = f"CUPTI_ACTIVITY_KIND_{kind}"
        width = len(self.database.execute(f"PRAGMA table_info({table})").fetchall())
        self.database.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * width)})", rows)


def _ranges(begin: list[int], finish: list[int]) -> Iterator[tuple[int, int, str]]:
    for first in range(0, len(begin), len(STEPS)):
        last = min(first + len(STEPS), len(begin)) - 1
        yield begin[first], finish[last], "iter"
        for step in range(first, last + 1):
            name = STEPS[step - first]
            if name == "decode.step" and STEPS[step - first - 1] != name:
                yield begin[step], finish[last], "decode"
            yield begin[step] + 50, finish[step] - 50, name


def copy_frame(database: sqlite3.Connection) -> None:
    """All tables of the attached `real` export, and the rows of those that hold no events."""
    tables = database.execute("SELECT name, sql FROM real.sqlite_master WHERE type = 'table'").fetchall()
    for name, ddl in tables:
        database.execute(ddl)
        if name.startswith(("ENUM_", "TARGET_", "META_", "StringIds", "ANALYSIS_")):
            database.execute(f"INSERT INTO {name} SELECT * FROM real.{name}")
    database.execute("INSERT INTO NVTX_EVENTS SELECT * FROM real.NVTX_EVENTS WHERE eventType = 75")  # domains


def write_big_trace(path: Path, kernels: int, seed: int = 0) -> Truth:
    """Write the export with this many kernels (≥ 1), the same for the same seed; memory stays bounded."""
    rng = np.random.default_rng(seed)
    path.unlink(missing_ok=True)
    truth = Truth(window_ns=(12_000_000, 12_000_000))
    now = truth.window_ns[0]
    with TemporaryDirectory() as folder, closing(sqlite3.connect(path, isolation_level=None)) as database:
        real = Path(folder) / "real.sqlite"
        real.write_bytes(lzma.decompress(REAL_EXPORT.read_bytes()))
        database.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;")
        database.execute("ATTACH ? AS real", (str(real),))
        database.execute("BEGIN")
        copy_frame(database)
        writer = Writer(database)
        while truth.kernels < kernels:
            left = -(-(kernels - truth.kernels) // STEP_KERNELS)
            steps = draw_steps(rng, min(left, CHUNK_ITERATIONS * len(STEPS)), now)
            take = min(kernels - truth.kernels, steps.start.size)
            writer.write(steps, take, rng)
            truth.ranges += writer.ranges(steps)
            truth.add(steps.start.ravel()[:take], steps.end.ravel()[:take])
            now = int(steps.finish[-1])
        database.execute("COMMIT")
    truth.api_calls = writer.calls
    truth.close(now)
    return truth


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.big_trace", description=__doc__)
    parser.add_argument("out", type=Path, help="the export; what it holds is written beside it as .json")
    parser.add_argument("--kernels", type=int, default=2_000_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.kernels < 1:
        parser.error(f"--kernels {arguments.kernels}: at least 1 is needed")
    truth = json.dumps(asdict(write_big_trace(arguments.out, arguments.kernels, arguments.seed)))
    arguments.out.with_suffix(".json").write_text(truth + "\n")
    print(truth)


if __name__ == "__main__":
    main()
