"""A trace of known kernels with the GPU metrics that a profiler would have sampled beside it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
from synthetic_export import Export

from analysis.memory import deconvolve

PEAK_BPS = 4_000_000_000_000
STEPS = 60
# name: (duration ns, DRAM read %, DRAM write %, SM issue %, tensor %)
KERNELS = {
    "stream": (3_000, 70, 10, 20, 0),
    "matmul": (4_000, 30, 2, 25, 85),
    "tiny": (1_500, 4, 1, 3, 0),
}
ORDER = ["tiny", "stream", "tiny", "matmul", "stream", "tiny"] * 6
GAP_NS = {"tiny": 9_000, "stream": 400, "matmul": 400}  # the host is late with `tiny`
METRICS = ["DRAM Read Bandwidth", "DRAM Write Bandwidth", "SM Issue", "Tensor Active"]
PERIOD_NS = 10_000


def traced(path: Path, metrics: bool = True, offset_ns: int = 12_000, peak_bps: int = PEAK_BPS) -> Path:
    """STEPS decode steps of known kernels, and the samples of a profiler whose clock is ahead."""
    export, draw = Export(), np.random.default_rng(1)
    export.domain("harness")
    now, correlation, rows = 1_000_000, 0, []
    first = now
    for step in range(STEPS):
        begin = now
        for name in ORDER:
            length = int(KERNELS[name][0] * draw.uniform(0.9, 1.1))
            now += int(GAP_NS[name] * draw.uniform(0.9, 1.1))
            export.call(now - 300, now - 100, correlation)
            export.kernel(now, now + length, correlation, name=name)
            rows.append((now, now + length, list(KERNELS).index(name)))
            correlation, now = correlation + 1, now + length
        export.range("decode.step", begin, now, payload=step)
    export.range("iter", first, now)
    export.write(path)
    if metrics:
        start, end, code = np.array(rows).T
        edges = np.arange(0, now + 100_000, PERIOD_NS)
        design = deconvolve.overlap(edges[:-1], edges[1:], start, end, code, len(KERNELS))
        values = design @ np.array([kernel[1:] for kernel in KERNELS.values()], dtype=float)
        _store(path, edges[:-1] + offset_ns, np.ceil(values).astype(int), peak_bps)
    return path


def _store(path: Path, time: np.ndarray, values: np.ndarray, peak_bps: int) -> None:
    database = sqlite3.connect(path)
    database.executescript(
        "CREATE TABLE GPU_METRICS (rawTimestamp INTEGER, timestamp INTEGER, typeId INTEGER NOT NULL,"
        " metricId INTEGER NOT NULL, value INTEGER NOT NULL);"
        "CREATE TABLE TARGET_INFO_GPU_METRICS (typeId INTEGER, metricId INTEGER, metricName TEXT);"
        "CREATE TABLE TARGET_INFO_GPU (id INTEGER, name TEXT, memoryBandwidth INTEGER, smCount INTEGER);"
    )
    database.execute("INSERT INTO TARGET_INFO_GPU VALUES (0, 'NVIDIA H200', ?, 132)", (peak_bps,))
    for metric, name in enumerate(METRICS):
        label = f"{name} [Throughput %]"
        database.execute("INSERT INTO TARGET_INFO_GPU_METRICS VALUES (256, ?, ?)", (metric, label))
        database.executemany(
            "INSERT INTO GPU_METRICS VALUES (0, ?, 256, ?, ?)",
            [(int(at), metric, int(value)) for at, value in zip(time, values[:, metric], strict=True)],
        )
    database.commit()
    database.close()
