"""Two witnesses of the same kernels: sampled GPU metrics, and Nsight Compute."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from analysis.memory import ncu
from analysis.memory.measure import Memory
from analysis.memory.roofline import classify, stall_ns


def merge(measured: Memory, launches: pd.DataFrame) -> Memory:
    """What Nsight Compute counted (`ncu.read`) replaces the values of the same kernels (name and shape).

    Its bytes hold for the trace too, its durations don't: it runs each kernel alone and by default with cold
    caches, which takes longer. So GB/s are its bytes over the duration in the trace (low and high: over its
    launches), while memory_pct, compute_pct and with them the class are its own. Kernels that it didn't see
    keep their values; a warning says so if it saw none of them.
    """
    table = measured.kernels.copy()
    theirs = ncu.pooled(launches).set_index(["name", "shape"])
    place = theirs.index.get_indexer(pd.MultiIndex.from_frame(table[["name", "shape"]].astype(str)))
    hit = place >= 0
    if not hit.any():
        warning = "no kernel of the Nsight Compute file is in the trace"
        return replace(measured, warnings=[*measured.warnings, warning])
    rows = theirs.iloc[place[hit]].set_axis(table.index[hit])
    count = table.loc[hit, "count"].astype(float)
    mean_ns = table.loc[hit, "total_ns"] / count
    for column, per_launch in {
        "dram_gbps": "bytes_per_launch",
        "dram_low_gbps": "least_bytes",
        "dram_high_gbps": "most_bytes",
        "dram_read_gbps": "read_bytes",
        "dram_write_gbps": "write_bytes",
    }.items():
        table.loc[hit, column] = rows[per_launch] / mean_ns
    table.loc[hit, "dram_share"] = table.loc[hit, "dram_gbps"] / measured.peak_gbps
    table.loc[hit, "bytes"] = rows["bytes_per_launch"] * count
    table.loc[hit, "samples"] = rows["launches"].astype(float)
    table.loc[hit, "source"] = "ncu"
    own = ["warps_pct", "memory_pct", "compute_pct"]
    table.loc[hit, own] = rows[own]
    total = table["total_ns"].to_numpy(dtype=float)
    table["stall_ns"] = stall_ns(total, table["bytes"].to_numpy(dtype=float), measured.peak_gbps)
    table["memory_class"] = classify(table["memory_pct"].to_numpy(), table["compute_pct"].to_numpy())
    reasons = [name for name in rows.columns.astype(str) if name.startswith("stall")]
    return replace(measured, kernels=table.join(rows[reasons]))


def agreement(measured: Memory, launches: pd.DataFrame, kernels: int = 10) -> pd.DataFrame:
    """The kernels with the most time of those that both saw: sampled metrics beside Nsight Compute.

    Columns: name, shape, total_ns, mean_ns and ncu_ns (duration of one launch), megabytes, low_megabytes,
    high_megabytes and ncu_megabytes (of one launch), dram_pct and ncu_dram_pct (each at its own duration),
    class_by_metrics, class_by_ncu. Bytes are what can be compared: Nsight Compute's runs are slower
    (`merge`).
    """
    theirs = ncu.pooled(launches)
    theirs["class_by_ncu"] = classify(theirs["memory_pct"].to_numpy(), theirs["compute_pct"].to_numpy())
    theirs = theirs.rename(columns={"dram_pct": "dram_pct_by_ncu"})
    ours = measured.kernels[measured.kernels["source"] == "metrics"].astype({"name": str, "shape": str})
    both = ours.merge(theirs, on=["name", "shape"], suffixes=("", "_by_ncu")).nlargest(kernels, "total_ns")
    mean_ns = both["total_ns"] / both["count"]
    table = pd.DataFrame(
        {
            "name": both["name"],
            "shape": both["shape"],
            "total_ns": both["total_ns"],
            "mean_ns": mean_ns,
            "ncu_ns": both["dur_ns"],
            "megabytes": both["dram_gbps"] * mean_ns / 1e6,
            "low_megabytes": both["dram_low_gbps"] * mean_ns / 1e6,
            "high_megabytes": both["dram_high_gbps"] * mean_ns / 1e6,
            "ncu_megabytes": both["bytes_per_launch"] / 1e6,
            "dram_pct": both["dram_share"] * 100,
            "ncu_dram_pct": both["dram_pct_by_ncu"],
            "class_by_metrics": both["memory_class"].astype(str),
            "class_by_ncu": both["class_by_ncu"].astype(str),
        }
    )
    return table.reset_index(drop=True)
