"""Which NVTX ranges a piece of work belongs to: those that its launch call falls in.

Ranges are the host's: a kernel may start long after the range that launched it has ended, so it is the time
of the launch call that counts, never the kernel's own.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import pandas as pd

from analysis.intervals import Ints, covered_ns
from analysis.kernels import attention_counts

HARNESS_DOMAIN = "harness"  # the NVTX domain of this project's own ranges
ITERATION = "iter"
DECODE_STEP = "decode.step"


def match_launches(work: pd.DataFrame, api: pd.DataFrame) -> Ints:
    """Row of `api` that launched each row of `work`, -1 where the trace has none: shape [work].

    The key is (process, correlation). All nodes of a CUDA graph share the one call that launched it.
    """
    if work.empty or api.empty:
        return np.full(len(work), -1, dtype=np.int64)
    processes = pd.Index(pd.unique(pd.concat([work["process"], api["process"]])))
    api_key = _launch_key(processes, api)
    order = np.argsort(api_key, kind="stable")  # the earliest call first among equals
    key = _launch_key(processes, work)
    position = np.minimum(np.searchsorted(api_key[order], key), len(order) - 1)
    row = order[position]
    known = (api_key[row] == key) & (work["correlation"].to_numpy() >= 0)
    return np.where(known, row, -1)


def _launch_key(processes: pd.Index, table: pd.DataFrame) -> Ints:
    """One integer per (process, correlation): correlation ids have 32 bits."""
    return (
        processes.get_indexer(pd.Index(table["process"])).astype(np.int64) << 32
        | table["correlation"].to_numpy()
    )


def enclosing_ranges(ranges: pd.DataFrame, thread: Ints, time_ns: Ints) -> Ints:
    """Rows of `ranges` that were open on a thread at a time, outermost first: shape [times, levels].

    -1 where a level had no open range. One binary search per thread and level.
    """
    levels = int(ranges["depth"].max()) + 1 if len(ranges) else 0
    rows = np.full((len(time_ns), levels), -1, dtype=np.int64)
    by_thread = np.argsort(thread, kind="stable")
    sorted_thread = thread[by_thread]
    for key, part in ranges.groupby(["thread", "depth"]):
        one, level = cast(tuple[int, int], key)
        first, last = np.searchsorted(sorted_thread, [one, one + 1])
        mine = by_thread[first:last]
        start, end = part["start_ns"].to_numpy(), part["end_ns"].to_numpy()  # sorted, never overlapping
        candidate = np.searchsorted(start, time_ns[mine], side="right") - 1
        inside = (candidate >= 0) & (time_ns[mine] < end[candidate])
        rows[mine, level] = np.where(inside, part.index.to_numpy()[candidate], -1)
    return rows


def innermost(ranges: pd.DataFrame, enclosing: Ints) -> Ints:
    """The innermost enclosing range of each row, the harness's own before any other: shape [rows].

    A library's ranges (CCCL's, say) inside a phase of the harness must not hide the phase.
    """
    best = np.full(len(enclosing), -1, dtype=np.int64)
    ours = np.append((ranges["domain"] == HARNESS_DOMAIN).to_numpy(dtype=bool), False)
    for column in enclosing.T:
        better = (column >= 0) & (ours[column] | ~ours[best])
        best = np.where(better, column, best)
    return best


def phase_table(
    ranges: pd.DataFrame, work: pd.DataFrame, enclosing: Ints, gaps: pd.DataFrame, backend: pd.Categorical
) -> pd.DataFrame:
    """One row per (domain, name) of `ranges`.

    Columns: domain, name, count, wall_ns (host time inside), busy_ns (union of its work, per device),
    idle_ns (sum of the gaps that its work ended), launch_gap_ns (of these, the launch gaps), idle_share =
    idle / (idle + busy), kernels, work (kernels, copies and memsets), gap_median_ns, gap_p90_ns (NaN without
    gaps), attention_flash … (kernels of each attention backend). Phases that enclose others include them.
    `enclosing` [work, levels] gives the ranges of each row of `work`, `backend` [work] its attention.
    """
    by_name = ranges.groupby(["domain", "name"], observed=True, sort=False)
    phase_of_range = np.asarray(by_name.ngroup(), dtype=np.int64)
    table = by_name.size().rename("count").reset_index()
    phases = len(table)
    table["wall_ns"] = _wall_ns(ranges, phase_of_range, phases)

    row, phase = memberships(phase_of_range, enclosing)
    device = pd.factorize(work["device"])[0].astype(np.int64)
    devices = int(device.max()) + 1 if len(device) else 1
    start, end = work["start_ns"].to_numpy(), work["end_ns"].to_numpy()
    busy = covered_ns(phase * devices + device[row], start[row], end[row], phases * devices)
    table["busy_ns"] = busy.reshape(phases, devices).sum(axis=1)

    ended = gaps[gaps["after_row"] >= 0]
    gap, gap_phase = memberships(phase_of_range, enclosing[ended["after_row"].to_numpy()])
    durations = pd.Series(ended["dur_ns"].to_numpy()[gap]).groupby(gap_phase)
    every = pd.RangeIndex(phases)
    table["idle_ns"] = durations.sum().reindex(every, fill_value=0).astype(np.int64)
    launch = (ended["cause"] == "launch").to_numpy()[gap]
    table["launch_gap_ns"] = np.bincount(
        gap_phase[launch], ended["dur_ns"].to_numpy()[gap][launch], minlength=phases
    ).astype(np.int64)
    active = table["busy_ns"] + table["idle_ns"]
    table["idle_share"] = table["idle_ns"] / active.where(active > 0)
    is_kernel = work["kind"].isin(["kernel", "graph"]).to_numpy()
    table["kernels"] = np.bincount(phase[is_kernel[row]], minlength=phases)
    table["work"] = np.bincount(phase, minlength=phases)
    table["gap_median_ns"] = durations.median().reindex(every)
    table["gap_p90_ns"] = durations.quantile(0.9).reindex(every)
    return table.join(attention_counts(backend[row], phase, phases))


def memberships(phase_of_range: Ints, enclosing: Ints) -> tuple[Ints, Ints]:
    """(row, phase) pairs, each once even where a phase is nested in itself."""
    row, level = np.nonzero(enclosing >= 0)
    phase = phase_of_range[enclosing[row, level]].astype(np.int64)
    phases = int(phase_of_range.max()) + 1 if len(phase_of_range) else 1
    row, phase = np.divmod(np.unique(row * phases + phase), phases)
    return row, phase


def _wall_ns(ranges: pd.DataFrame, phase: Ints, phases: int) -> Ints:
    """Host time inside each phase; a phase nested in itself counts once, threads add up."""
    thread = pd.factorize(ranges["thread"])[0].astype(np.int64)
    threads = int(thread.max()) + 1 if len(thread) else 1
    start, end = ranges["start_ns"].to_numpy(), ranges["end_ns"].to_numpy()
    return (
        covered_ns(phase * threads + thread, start, end, phases * threads)
        .reshape(phases, threads)
        .sum(axis=1)
    )
