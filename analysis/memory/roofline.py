"""What holds a kernel back: the memory, the arithmetic units, or neither; and what that costs."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.accounting.account import Account
from analysis.accounting.causes import HOST_CAUSES
from analysis.engine.intervals import Ints
from analysis.memory.samples import Floats

# The thresholds of Nsight Compute's own rule SOLBottleneck (sections/SpeedOfLight.py:
# latency_bound_threshold, no_bound_threshold, balanced_threshold), percent of the device's peak.
LATENCY_BOUND_PCT = 60.0
NO_BOUND_PCT = 80.0
BALANCED_PCT = 10.0

CLASSES = ("memory-bound", "compute-bound", "balanced", "latency-bound", "unknown")


def classify(memory_pct: Floats, compute_pct: Floats) -> pd.Categorical:
    """The class of each kernel from its memory and compute throughput, percent of peak: [kernels].

    Both below 60%: latency-bound, the kernel waits rather than works. Otherwise the larger one binds; within
    10 of each other they are balanced, unless one is beyond 80%. NaN in either: unknown.

    Samples of nsys know DRAM, not the caches: what is bound by L2 looks latency-bound in them. Compute is the
    busier of issue slots and tensor pipes there, `sm__throughput` (all pipes) with Nsight Compute.
    """
    larger = np.maximum(memory_pct, compute_pct)
    close = (np.abs(memory_pct - compute_pct) < BALANCED_PCT) & (larger < NO_BOUND_PCT)
    chosen = np.select(
        [np.isnan(larger), larger < LATENCY_BOUND_PCT, close, memory_pct >= compute_pct],
        ["unknown", "latency-bound", "balanced", "memory-bound"],
        "compute-bound",
    )
    return pd.Categorical(chosen, categories=list(CLASSES))


def host_gaps(acc: Account, code: Ints, kernels: int) -> Floats:
    """Mean idle time before one launch of each kernel that the host is to blame for, ns: [kernels].

    The gaps that the kernel ended and whose dominant cause is one of HOST_CAUSES, over all its launches. A
    kernel is `host_starved` where this exceeds its own mean duration: what it does matters less than when it
    is launched. That is a property of the launches, so it stands beside the class and doesn't replace it.
    `code` [work] is the kernel of each row of the trace's work, -1 for none.
    """
    ended = acc.gaps[(acc.gaps["after_row"] >= 0) & acc.gaps["cause"].isin(HOST_CAUSES)]
    which = code[ended["after_row"].to_numpy(dtype=np.int64)]
    known = which >= 0
    blamed = np.bincount(
        which[known], weights=ended["dur_ns"].to_numpy(dtype=float)[known], minlength=kernels
    )
    return blamed / acc.kernels["count"].to_numpy(dtype=float)


def stall_ns(total_ns: Floats, moved_bytes: Floats, peak_gbps: float) -> Floats:
    """Time beyond the byte floor: total − bytes / peak, never negative; 1 GB/s is one byte per nanosecond.

    It holds everything that isn't moving bytes at full speed: latency, arithmetic, ramp-up, tails.
    """
    return np.maximum(total_ns - moved_bytes / peak_gbps, 0)
