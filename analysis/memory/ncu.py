"""Nsight Compute's measurements of single kernels, from `ncu --csv --page raw`."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.accounting.kernels import short_name
from analysis.errors import TraceError
from analysis.memory.samples import Floats

_DURATION = "gpu__time_duration.sum"
_READ, _WRITE = "dram__bytes_read.sum", "dram__bytes_write.sum"
_PERCENTS = {
    "dram_pct": "dram__throughput.avg.pct_of_peak_sustained_elapsed",
    "memory_pct": "gpu__compute_memory_throughput.avg.pct_of_peak_sustained_elapsed",
    "compute_pct": "sm__throughput.avg.pct_of_peak_sustained_elapsed",
    "warps_pct": "sm__warps_active.avg.pct_of_peak_sustained_active",
}
# Warps per issued instruction that wait for this reason, whatever the version calls the metric.
_STALL = re.compile(r"smsp__average_warps?_(?:latency_)?issue_stalled_(\w+?)(?:_per_issue_active)?\.ratio")
_NO_STALL = "selected"  # the warp that issues

_TIME_NS = {
    "nsecond": 1,
    "ns": 1,
    "usecond": 1e3,
    "us": 1e3,
    "msecond": 1e6,
    "ms": 1e6,
    "second": 1e9,
    "s": 1e9,
}
_BYTES = {"byte": 1, "Kbyte": 1e3, "Mbyte": 1e6, "Gbyte": 1e9, "Tbyte": 1e12}
_HINT = (
    "give what `ncu --csv --page raw --metrics gpu__time_duration.sum,dram__bytes_read.sum,… PROGRAM` "
    "printed, or wrote to --log-file"
)


def read(path: Path) -> pd.DataFrame:
    """One row per profiled kernel launch.

    Columns: name (short), shape ("(grid)x(block)" as in the trace's work), dur_ns, read_bytes, write_bytes,
    dram_pct, memory_pct (the busiest part of the memory system, caches included), compute_pct (the busiest
    pipe), warps_pct and stalled_<reason> (warps waiting per issued instruction), NaN for a metric that wasn't
    collected. Raises TraceError if the file is no such table or has no durations.
    """
    header, units, rows = _table(path)
    table = pd.DataFrame(rows, columns=header)
    result = pd.DataFrame(
        {
            "name": [short_name(name) for name in table["Kernel Name"]],
            "shape": [_shape(*both) for both in zip(table["Grid Size"], table["Block Size"], strict=True)],
            "dur_ns": _numbers(table, units, _DURATION, _TIME_NS),
            "read_bytes": _numbers(table, units, _READ, _BYTES),
            "write_bytes": _numbers(table, units, _WRITE, _BYTES),
        }
    )
    for column, metric in _PERCENTS.items():
        result[column] = _numbers(table, units, metric, {"%": 1})
    for metric in header:
        if found := _STALL.fullmatch(metric):
            result[f"stalled_{found[1]}"] = _numbers(table, units, metric, {})
    if result["dur_ns"].isna().all():
        raise TraceError(f"{path.name} has no {_DURATION}", _HINT)
    return result


def pooled(launches: pd.DataFrame) -> pd.DataFrame:
    """One row per kernel (name and shape), from `read`: means over its launches.

    Columns: name, shape, launches, dur_ns, read_bytes, write_bytes and bytes_per_launch, least_bytes and
    most_bytes (of one launch), the percentages of `read` (weighted by time), stalled_<reason> as shares of
    all stalls (they add up to 1), stall_reason (the largest of them; None without).
    """
    frame = launches.assign(bytes=launches["read_bytes"] + launches["write_bytes"])
    groups = frame.groupby(["name", "shape"], sort=False)
    table = groups[["dur_ns", "read_bytes", "write_bytes"]].mean()
    table.insert(0, "launches", groups.size())
    table["bytes_per_launch"] = groups["bytes"].mean()
    table["least_bytes"], table["most_bytes"] = groups["bytes"].min(), groups["bytes"].max()
    stalls = [name for name in frame.columns.astype(str) if name.startswith("stalled_")]
    stalls = [name for name in stalls if name != f"stalled_{_NO_STALL}"]
    for column in (*_PERCENTS, *stalls):
        time = frame["dur_ns"].where(frame[column].notna())
        sums = frame.assign(time=time, product=frame[column] * time).groupby(["name", "shape"], sort=False)
        table[column] = sums["product"].sum(min_count=1) / sums["time"].sum(min_count=1)
    every = table[stalls].sum(axis=1, min_count=1)
    table[stalls] = table[stalls].div(every.where(every > 0), axis=0)
    table["stall_reason"] = [_largest(row, stalls) for row in table[stalls].to_numpy(dtype=float)]
    return table.reset_index()


def _largest(shares: Floats, stalls: list[str]) -> str | None:
    return stalls[int(np.nanargmax(shares))].removeprefix("stalled_") if np.isfinite(shares).any() else None


def _table(path: Path) -> tuple[list[str], dict[str, str], list[list[str]]]:
    """Header, unit per column, rows. ncu mixes its own messages and the program's output into the file."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise TraceError(f"{path} can't be read: {error.strerror}", _HINT) from error
    first = next((at for at, line in enumerate(lines) if line.startswith('"ID","Process ID"')), None)
    if first is None:
        reason = next((line for line in lines if "ERR_NVGPUCTRPERM" in line or "==ERROR==" in line), "")
        raise TraceError(
            f"{path.name} is no table of Nsight Compute" + (f": {reason}" if reason else ""), _HINT
        )
    header, *rows = csv.reader(line for line in lines[first:] if line.startswith('"'))
    if "Metric Name" in header:
        raise TraceError(f"{path.name} was written by --page details", _HINT)
    rows = [row for row in rows if len(row) == len(header)]
    units = dict(zip(header, rows[0], strict=True)) if rows and not rows[0][0] else {}
    rows = [row for row in rows if row[0].isdigit()]
    if not rows:
        raise TraceError(f"{path.name} has no kernels: nothing was profiled", "see ncu's messages at its top")
    return header, units, rows


def _numbers(table: pd.DataFrame, units: dict[str, str], metric: str, scale: dict[str, float]) -> pd.Series:
    """A metric in base units; NaN where it is missing, "n/a", or no number ("1,234.5" is one)."""
    if metric not in table:
        return pd.Series(np.nan, index=table.index)
    plain = table[metric].str.replace(",", "", regex=False)
    numbers = pd.to_numeric(plain, errors="coerce").astype(float)
    unit = units.get(metric, "")
    if scale and unit not in scale:
        return numbers * np.nan  # a unit that nobody told us how to read
    return numbers * scale.get(unit, 1)


def _shape(grid: str, block: str) -> str:
    return f"{grid}x{block}".replace(" ", "")
