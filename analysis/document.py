"""The account as one JSON object, for other programs: `python -m analysis TRACE --json`.

    schema_version   1; a field that is added doesn't change it, one that changes its meaning or goes does
    trace            file, nsys, schema, recorded_utc, gpus[] (id, name, peak_gbps, sms)
    window           start_ns, end_ns, wall_ns
    devices[]        device, name, busy_ns, idle_ns, idle_share, kernels, work (kernels, copies, memsets),
                     gaps: count, median_ns, p90_ns, p99_ns, by_cause_ns (adds up to idle_ns)
    phases[]         domain, name, count, wall_ns, busy_ns, idle_ns, idle_share, kernels, work, by_cause_ns,
                     gap_median_ns, gap_p90_ns (null without gaps); a phase that encloses others includes them
    kernels_top[]    name, shape, kind, count, total_ns, median_ns, phases[], memory: null without samples, or
                     class, host_starved, dram_gbps (null where abstained) with low and high, samples,
                     stall_ns, source ("gpu metrics" or "ncu")
    memory_note      why there are no memory figures; null if there are
    warnings[]       sentences

Times are integer nanoseconds on the trace's clock. A number that the trace can't give is null, never 0.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd

from analysis.accounting.account import Account
from analysis.accounting.causes import CAUSES
from analysis.reading.trace import Trace

if TYPE_CHECKING:
    from analysis.memory import Memory

SCHEMA_VERSION = 1
_TOP_KERNELS = 50

Row: TypeAlias = Mapping[Hashable, Any]


def document(trace: Trace, acc: Account, memory: Memory | None = None) -> dict[str, Any]:
    """The object that the module's docstring describes."""
    start, end = acc.window_ns
    return {
        "schema_version": SCHEMA_VERSION,
        "trace": _origin(trace),
        "window": {"start_ns": start, "end_ns": end, "wall_ns": end - start},
        "devices": [_device(acc, row) for row in acc.devices.to_dict("records")],
        "phases": [_phase(row) for row in acc.phases.to_dict("records")],
        "kernels_top": [_kernel(row, memory) for row in acc.kernels.head(_TOP_KERNELS).to_dict("records")],
        "memory_note": (memory.note or None) if memory else "not asked for",
        "warnings": list(acc.warnings),
    }


def _origin(trace: Trace) -> dict[str, Any]:
    info = trace.info
    gpus = [
        {
            "id": gpu.id,
            "name": gpu.name,
            "peak_gbps": gpu.memory_bandwidth_bps / 1e9 or None,
            "sms": gpu.sms or None,
        }
        for gpu in info.gpus
    ]
    return {
        "file": trace.path.name,
        "nsys": info.product_version or None,
        "schema": info.schema or None,
        "recorded_utc": info.recorded_utc or None,
        "gpus": gpus,
    }


def _device(acc: Account, row: Row) -> dict[str, Any]:
    lengths = acc.gaps.loc[acc.gaps["device"] == row["device"], "dur_ns"].to_numpy()
    quantiles = np.percentile(lengths, [50, 90, 99]).tolist() if len(lengths) else [None] * 3
    return {
        **{
            name: row[name]
            for name in ("device", "name", "busy_ns", "idle_ns", "idle_share", "kernels", "work")
        },
        "gaps": {
            "count": len(lengths),
            **dict(zip(("median_ns", "p90_ns", "p99_ns"), quantiles, strict=True)),
            "by_cause_ns": _by_cause(row),
        },
    }


def _phase(row: Row) -> dict[str, Any]:
    names = ("domain", "name", "count", "wall_ns", "busy_ns", "idle_ns", "kernels", "work")
    numbers = ("idle_share", "gap_median_ns", "gap_p90_ns")
    known = {name: None if pd.isna(row[name]) else row[name] for name in numbers}
    return {**{name: row[name] for name in names}, **known, "by_cause_ns": _by_cause(row)}


def _by_cause(row: Row) -> dict[str, int]:
    return {cause: row[f"{cause}_ns"] for cause in CAUSES}


def _kernel(row: Row, memory: Memory | None) -> dict[str, Any]:
    names = ("name", "shape", "kind", "count", "total_ns", "median_ns")
    return {**{name: row[name] for name in (*names, "phases")}, "memory": _memory(row, memory)}


def _memory(row: Row, memory: Memory | None) -> dict[str, Any] | None:
    if memory is None or memory.kernels.empty:
        return None
    table = memory.kernels
    found = table[(table["name"] == row["name"]) & (table["shape"] == row["shape"])]
    if found.empty:
        return None
    (kernel,) = found.head(1).to_dict("records")
    numbers = ("dram_gbps", "dram_low_gbps", "dram_high_gbps", "samples", "stall_ns")
    known = {name: None if pd.isna(kernel[name]) else kernel[name] for name in numbers}
    flags = {"host_starved": bool(kernel["host_starved"]), "source": kernel["source"]}
    return {"class": kernel["memory_class"], **flags, **known}
