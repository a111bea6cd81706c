"""Memory traffic of a trace: per kernel, per phase, and over a typical decode step."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from analysis.accounting.account import Account
from analysis.accounting.kernels import shorten
from analysis.accounting.phases import DECODE, DECODE_STEP, HARNESS_DOMAIN
from analysis.engine.grouping import Groups
from analysis.engine.intervals import Ints
from analysis.memory import phases, samples
from analysis.memory.deconvolve import DRAM_TOTAL, SEARCHED_PERIODS, Fit, clock_offset, fit, overlap
from analysis.memory.roofline import classify, host_gaps, stall_ns
from analysis.memory.samples import DRAM, HOW_TO_RECORD, Floats, Samples
from analysis.reading.trace import Trace

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

_KERNELS = 80  # kinds of kernels with values of their own, the most expensive; the others share one
_SEED = 20250101  # of the resampling: the same trace gives the same intervals
_GOOD_R2 = 0.5
TIMING_NS = 250  # a doubt: the offset that fits DRAM best differs that much from the one that fits the SMs

COLUMNS = [
    "name", "shape", "kind", "count", "total_ns", "dram_gbps", "dram_low_gbps", "dram_high_gbps",
    "dram_read_gbps", "dram_write_gbps", "dram_share", "sm_active_pct", "sm_issue_pct", "tensor_active_pct",
    "warps_pct", "memory_pct", "compute_pct", "samples", "bytes", "stall_ns", "memory_class",
    "host_gap_ns", "host_starved", "source",
]  # fmt: skip


@dataclass(frozen=True)
class Memory:
    """Memory traffic while kernels ran. NaN where there is too little evidence, never 0.

    1 GB/s is 10⁹ bytes per second.

    kernels: one row per row of `Account.kernels`, columns as in COLUMNS.
        dram_*: means while the kernel runs (low and high: 95% interval, or the range over launches with
        source ncu); dram_share is of the peak. bytes: of all launches. stall_ns: beyond the byte floor.
        memory_pct, compute_pct: what memory_class rests on (see `roofline`). samples: effective number (see
        `deconvolve.Fit`), with source ncu the number of launches. host_gap_ns, host_starved: see
        `roofline.host_gaps`. source: metrics, ncu or "" (unknown). With ncu also stall_reason,
        stalled_<reason>.
    phases, timeline: see `phases.phase_table` and `phases.timeline`.
    peak_gbps: the device's peak as its driver states it; NaN if it doesn't.
    period_ns: of the samples, 0 without any.
    offset_ns: how far the samples' clock was ahead of the kernels' (corrected everywhere).
    note: why something is missing and how to record it; "" if nothing is.
    """

    kernels: pd.DataFrame
    phases: pd.DataFrame
    timeline: pd.DataFrame
    peak_gbps: float
    period_ns: int
    offset_ns: int = 0
    note: str = ""
    warnings: list[str] = field(default_factory=list)


def memory(trace: Trace, acc: Account) -> Memory:
    """Memory traffic from the GPU metrics in a trace; without them everything is unknown and `note` says why.

    Raises TraceError if the metrics are there but can't be understood.
    """
    found = [one for one in samples.read(trace.export, acc.window_ns) if one.has_dram]
    code = _kernel_of_work(trace.work, acc.kernels)
    gaps = host_gaps(acc, code, len(acc.kernels))
    peak = _peak_gbps(trace, found)
    if not found or acc.kernels.empty:
        return Memory(_unknown(acc, gaps), *_no_phases(), peak, 0, note=_why_not(trace, found))
    top, codes = _most_expensive(code, acc.kernels)
    offsets = {one.device: _offset(one, trace.work, top, codes) for one in found}
    found, fitted = _fit(found, offsets, trace.work, top, codes)
    kernels = _kernel_table(acc, fitted, gaps, peak)
    traffic = {one.device: phases.Traffic.of(one, offsets[one.device]) for one in found}
    spans = phases.device_ranges(trace, acc)
    period = found[0].period_ns
    return Memory(
        kernels=kernels,
        phases=phases.phase_table(spans, acc, traffic, period, peak),
        timeline=phases.timeline(spans, trace, traffic, period, peak),
        peak_gbps=peak,
        period_ns=period,
        offset_ns=offsets[found[0].device],
        note="" if np.isfinite(peak) else "the trace doesn't say the GPU's peak bandwidth: no GB/s",
        warnings=_warnings(found, offsets, fitted),
    )


def aligned(trace: Trace, acc: Account) -> list[Samples]:
    """The samples of each device, as long as they lasted, on the kernels' clock: for a timeline of both."""
    found = samples.read(trace.export)
    if not found or acc.kernels.empty:
        return found
    top, codes = _most_expensive(_kernel_of_work(trace.work, acc.kernels), acc.kernels)
    ahead = [_offset(one, trace.work, top, codes) for one in found]
    return [
        replace(one, start_ns=one.start_ns - ns, end_ns=one.end_ns - ns)
        for one, ns in zip(found, ahead, strict=True)
    ]


def memory_metrics(measured: Memory) -> dict[str, float]:
    """Flat numbers for results.db: `<phase>.dram_gbps` and `<phase>.dram_share` of the harness's phases.
    Those of `decode` are of its steps where they are known, with `decode.bytes_per_step`.
    `decode.bytes_per_phase` is of all of it. Absent where not measured."""
    ours = measured.phases[measured.phases["domain"] == HARNESS_DOMAIN]
    values: dict[str, float] = {}
    for _, row in ours.iterrows():
        if row["name"] != DECODE_STEP:
            values[f"{row['name']}.dram_gbps"] = float(row["dram_gbps"])
            values[f"{row['name']}.dram_share"] = float(row["dram_share"])
    for _, whole in ours[ours["name"] == DECODE].iterrows():
        values["decode.bytes_per_phase"] = float(whole["bytes_per_range"])
    for _, step in ours[ours["name"] == DECODE_STEP].iterrows():
        values["decode.dram_gbps"] = float(step["dram_gbps"])
        values["decode.dram_share"] = float(step["dram_share"])
        values["decode.bytes_per_step"] = float(step["bytes_per_range"])
    return {name: value for name, value in values.items() if np.isfinite(value)}


def _kernel_of_work(work: pd.DataFrame, kernels: pd.DataFrame) -> Ints:
    """The row of `kernels` that each row of `work` belongs to, -1 for work outside the window: [work]."""
    if work.empty or kernels.empty:
        return np.full(len(work), -1, dtype=np.int64)
    groups = Groups()
    columns = (shorten(work["name"]), work["shape"].array, work["kind"].array)
    of_work = groups.encode(*(column.codes.astype(np.int64) for column in columns))
    labels = zip(columns, zip(*groups.rows, strict=True), strict=True)
    ran = pd.MultiIndex.from_arrays([column.categories.astype(str)[list(code)] for column, code in labels])
    listed = pd.MultiIndex.from_frame(kernels[["name", "shape", "kind"]].astype(str))
    return listed.get_indexer(ran)[of_work].astype(np.int64)


def _most_expensive(code: Ints, kernels: pd.DataFrame) -> tuple[Ints, int]:
    """The codes of `_kernel_of_work`, one for all but the most expensive kernels, and how many there are."""
    return np.where(code < 0, -1, np.minimum(code, _KERNELS)), min(len(kernels), _KERNELS + 1)


def _offset(one: Samples, work: pd.DataFrame, code: Ints, codes: int) -> int:
    return clock_offset(one, *_of_device(one.device, work, code), codes)[0]


def _of_device(device: int, work: pd.DataFrame, code: Ints) -> tuple[Ints, Ints, Ints]:
    mine = (work["device"].to_numpy() == device) & (code >= 0)
    return work["start_ns"].to_numpy()[mine], work["end_ns"].to_numpy()[mine], code[mine]


def _fit(
    found: list[Samples], offsets: dict[int, int], work: pd.DataFrame, code: Ints, codes: int
) -> tuple[list[Samples], Fit]:
    """The samples without rounding, and one regression over all devices: kernels do the same on each."""
    from scipy.sparse import vstack  # see deconvolve

    def design(shift_ns: int) -> csr_matrix:
        parts = []
        for one in found:
            ahead = offsets[one.device] + shift_ns
            on_device = _of_device(one.device, work, code)
            parts.append(overlap(one.start_ns - ahead, one.end_ns - ahead, *on_device, codes))
        return vstack(parts, format="csr")

    names = [name for name in found[0].values if all(name in one.values for one in found)]
    stored = {name: np.concatenate([one.values[name] for one in found]) for name in names}
    shifted = [design(-TIMING_NS), design(TIMING_NS)]
    fitted = fit(design(0), stored, np.random.default_rng(_SEED), shifted)
    ends = np.cumsum([len(one) for one in found])[:-1]
    exact = {name: np.split(fitted.exact[name], ends) for name in names}
    whole = [
        replace(one, values={name: exact[name][place] for name in names}) for place, one in enumerate(found)
    ]
    return whole, fitted


def _kernel_table(acc: Account, fitted: Fit, gaps: Floats, peak_gbps: float) -> pd.DataFrame:
    table = _unknown(acc, gaps)
    own = min(len(table), _KERNELS)

    def column(values: dict[str, Floats], name: str) -> Floats:
        whole = np.full(len(table), np.nan)
        if name in values:
            whole[:own] = values[name][:own]
        return whole

    for name in ("sm_active_pct", "sm_issue_pct", "tensor_active_pct", "warps_pct"):
        table[name] = column(fitted.value, name)
    dram = column(fitted.value, DRAM_TOTAL)
    table["dram_share"] = dram / 100
    table["dram_gbps"] = dram / 100 * peak_gbps
    table["dram_low_gbps"] = column({DRAM_TOTAL: fitted.low}, DRAM_TOTAL) / 100 * peak_gbps
    table["dram_high_gbps"] = column({DRAM_TOTAL: fitted.high}, DRAM_TOTAL) / 100 * peak_gbps
    table["dram_read_gbps"] = column(fitted.value, DRAM[0]) / 100 * peak_gbps
    table["dram_write_gbps"] = column(fitted.value, DRAM[1]) / 100 * peak_gbps
    table["memory_pct"] = dram
    # fmax: a kernel without one of the two has the other; NaN only without both.
    table["compute_pct"] = np.fmax(table["sm_issue_pct"], table["tensor_active_pct"])
    table["samples"] = column({"samples": fitted.samples}, "samples")
    total = table["total_ns"].to_numpy(dtype=float)
    table["bytes"] = table["dram_gbps"] * total
    table["stall_ns"] = stall_ns(total, table["bytes"].to_numpy(), peak_gbps)
    table["memory_class"] = classify(dram, table["compute_pct"].to_numpy())
    table["source"] = np.where(np.isfinite(dram), "metrics", "")
    return table


def _unknown(acc: Account, gaps: Floats) -> pd.DataFrame:
    table = acc.kernels[["name", "shape", "kind", "count", "total_ns"]].reset_index(drop=True)
    table = table.reindex(columns=COLUMNS)
    table["memory_class"] = classify(np.full(len(table), np.nan), np.full(len(table), np.nan))
    table["host_gap_ns"] = gaps
    table["host_starved"] = gaps > table["total_ns"] / table["count"]
    table["source"] = ""
    return table


def _no_phases() -> tuple[pd.DataFrame, pd.DataFrame]:
    return pd.DataFrame(columns=phases.PHASES), pd.DataFrame(columns=phases.TIMELINE)


def _peak_gbps(trace: Trace, found: list[Samples]) -> float:
    """The peak of the sampled devices, as the driver states it; NaN if it doesn't or if they differ."""
    devices = {one.device for one in found}
    gpus = [gpu for gpu in trace.info.gpus if gpu.id in devices] or list(trace.info.gpus[:1])
    peaks = {gpu.memory_bandwidth_bps / 1e9 for gpu in gpus}
    return peaks.pop() if len(peaks) == 1 and min(peaks) > 0 else np.nan


def _why_not(trace: Trace, found: list[Samples]) -> str:
    if found:
        return "the trace has GPU metrics, but no kernels to relate them to"
    if samples.stored_as_json(trace.export):
        return (
            "this trace has no GPU metrics in the form that nsys 2024 and later write; if it was recorded "
            "with them, export the .nsys-rep again with a newer nsys, otherwise " + HOW_TO_RECORD
        )
    return "the trace has no GPU metrics with DRAM bandwidth; " + HOW_TO_RECORD


def _warnings(found: list[Samples], offsets: dict[int, int], fitted: Fit) -> list[str]:
    warnings = []
    if fitted.r2.get(DRAM_TOTAL, 1.0) < _GOOD_R2:
        warnings.append(
            f"kernels explain only {fitted.r2[DRAM_TOTAL]:.0%} of how the samples of DRAM traffic vary: "
            "values per kernel are rough, those per phase don't depend on it"
        )
    if any(abs(offsets[one.device]) >= SEARCHED_PERIODS * one.period_ns for one in found):
        warnings.append(
            "the clock of the GPU metrics differs from that of the kernels by more than was searched: memory "
            "traffic may count for the wrong kernels"
        )
    holes = sum(int((one.start_ns[1:] > one.end_ns[:-1]).sum()) for one in found)
    if holes:
        warnings.append(f"{holes:,} holes in the samples of GPU metrics: the profiler lost some")
    return warnings
