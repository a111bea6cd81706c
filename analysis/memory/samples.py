"""GPU metrics that nsys sampled beside the trace (`--gpu-metrics-devices`), as one table per device."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from analysis.engine.intervals import Ints
from analysis.errors import TraceError
from analysis.reading.export import Export

Floats = npt.NDArray[np.float64]

TABLE = "GPU_METRICS"
NAMES_TABLE = "TARGET_INFO_GPU_METRICS"

# Spellings of nsys 2023 to 2025 on Volta to Hopper. `[Throughput %]` is the only unit that is stored as a
# plain number: averages per cycle are stored on a scale that the export doesn't give.
_PATTERNS = {
    "gr_active_pct": r"GR Active",
    "sm_active_pct": r"SMs? Active",
    "sm_issue_pct": r"SM Issue",
    "tensor_active_pct": r"Tensor Active",
    "warps_pct": r"Compute Warps in Flight",
    "dram_read_pct": r"(DRAM|VRAM) Read (Bandwidth|Throughput)",
    "dram_write_pct": r"(DRAM|VRAM) Write (Bandwidth|Throughput)",
}
METRICS = tuple(_PATTERNS)
DRAM = ("dram_read_pct", "dram_write_pct")
_UNIT = r"( \[Throughput %\])?"
_GPU_BITS = 0xFF  # a typeId holds the number of the GPU in its lowest byte
_MAX_PCT = 110  # above: no percentage. Counters of one sample can exceed the peak by a little.

HOW_TO_RECORD = (
    "record them with `nsys profile --gpu-metrics-devices=0 --gpu-metrics-frequency=100000 …`; it needs "
    "access to the GPU's counters: root, CAP_SYS_ADMIN, or the driver's option "
    "NVreg_RestrictProfilingToAdminUsers=0"
)


@dataclass(frozen=True)
class Samples:
    """The samples of one device, in time order.

    A sample is the mean over [start_ns, end_ns) of the profiler's clock, which may be ahead of the kernels'
    (see `analysis.memory.deconvolve.clock_offset`). values: metric name (of METRICS) to percent of the
    device's peak, shape [samples]. What the profiler stored only in part is left out.
    """

    device: int
    start_ns: Ints
    end_ns: Ints
    period_ns: int
    values: dict[str, Floats]

    def __len__(self) -> int:
        return len(self.start_ns)

    @property
    def has_dram(self) -> bool:
        return all(name in self.values for name in DRAM)


def canonical(name: str) -> str | None:
    """The name in METRICS of a metric as nsys spells it, or None: `DRAM Read Bandwidth [Throughput %]`."""
    for metric, pattern in _PATTERNS.items():
        if re.fullmatch(pattern + _UNIT, name):
            return metric
    return None


def read(export: Export, window_ns: tuple[int, int] | None = None) -> list[Samples]:
    """The samples of each device, within a window if one is given; empty where the trace has none.

    The table is read in chunks, and of each only what METRICS needs is kept: 16 bytes per kept value. Raises
    TraceError for a file that can't be read.
    """
    if TABLE not in export.tables:
        return []
    wanted = _wanted(export)
    columns = ["timestamp", "typeId", "metricId", "value"]
    parts = list(export.integers(TABLE, columns, lambda chunk: _kept(chunk, wanted, window_ns)))
    if not parts or not wanted:
        return []
    rows = np.concatenate(parts, axis=1)
    del parts
    found = []
    for gpu in np.unique(rows[1]).tolist():
        found += _wide(gpu, rows[:, rows[1] == gpu])
    return found


def stored_as_json(export: Export) -> bool:
    """Whether the export comes from an nsys that wrote metrics as JSON (2023 and before), not read here."""
    return "GENERIC_EVENTS" in export.tables and TABLE not in export.tables


def _wanted(export: Export) -> dict[tuple[int, int], int]:
    """(typeId, metricId) to the position in METRICS. Ids differ from version to version, names hardly."""
    named = export.select(NAMES_TABLE, "typeId", "metricId", "metricName")
    wanted: dict[tuple[int, int], int] = {}
    for type_id, metric_id, name in named:
        metric = canonical(str(name))
        if metric is not None:
            wanted[type_id, metric_id] = METRICS.index(metric)
    return wanted


def _kept(
    chunk: Ints, wanted: dict[tuple[int, int], int], window_ns: tuple[int, int] | None
) -> npt.NDArray[np.int64]:
    """Rows [time, GPU, metric, value] of a chunk [timestamp, typeId, metricId, value]."""
    time, type_id, metric_id, value = chunk
    inside = np.ones(len(time), dtype=bool)
    if window_ns is not None:
        inside = (time >= window_ns[0]) & (time <= window_ns[1])
    metric = np.full(len(time), -1, dtype=np.int64)
    for (its_type, its_metric), position in wanted.items():
        metric[(metric_id == its_metric) & (type_id == its_type)] = position
    keep = inside & (metric >= 0)
    return np.stack([time[keep], type_id[keep] & _GPU_BITS, metric[keep], value[keep]])


def _wide(device: int, rows: npt.NDArray[np.int64]) -> list[Samples]:
    time, _, metric, value = rows
    stored = np.unique(metric)
    start, at, count = np.unique(time, return_inverse=True, return_counts=True)
    table = np.zeros((len(METRICS), len(start)))
    table[metric, at] = value
    whole = count == len(stored)
    start, table = start[whole], table[:, whole]
    if len(start) < 2:
        return []
    step = np.diff(start)
    regular = step <= 1.5 * np.median(step)
    period = round(float(step[regular].mean()))
    # Before a hole (a buffer that overflowed) a sample covers one period, not the hole.
    end = np.append(np.where(regular, start[1:], start[:-1] + period), start[-1] + period)
    values = {METRICS[position]: table[position] for position in stored.tolist()}
    for name, column in values.items():
        if column.max() > _MAX_PCT:
            raise TraceError(
                f"GPU metric {name} has values up to {column.max():,.0f}: no percentage",
                "this version's metrics aren't understood; analyse a trace recorded without GPU metrics",
            )
    return [Samples(device, start, end, period, values)]
