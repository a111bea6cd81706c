"""What a trace lacks, why, and what to do about it. Missing evidence is said, never counted as zero."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from analysis.accounting.host import conditional_nodes
from analysis.accounting.kernels import is_kernel
from analysis.accounting.phases import iterations, within
from analysis.engine.grouping import Codes, blocks
from analysis.errors import TraceError
from analysis.reading.source import export_command
from analysis.reading.times import LeftOut
from analysis.reading.trace import Trace

_LAUNCH_CALL = re.compile(r"^cu(da)?(LaunchKernel|LaunchCooperativeKernel|GraphLaunch|Launch\b)")
SAMPLED = (
    "the trace was recorded with GPU metrics, and their sampling changes gaps (shorter inside graphs, longer "
    "where the host launches each kernel): take gaps from a trace without them"
)
_PAUSED = (
    "bodies of conditional graph nodes were traced node by node; nsys pauses the device at every pass, so "
    "the gaps around them are the profiler's: record with --cuda-graph-trace=graph (the harness: "
    "trace.graphs=graph)"
)
_UNKNOWN_WORTH_SAYING = 0.01  # share of work without a launch call


def missing_kernels(trace: Trace) -> tuple[str, str] | None:
    """(message, hint) if the host launched kernels and the trace has none of them."""
    if is_kernel(trace.work).any():
        return None
    if lost := [one for one in trace.left_out if one.kind == "kernel"]:
        return f"no kernel has times that can be true (found {lost[0]})", _again(trace)
    calls = trace.api["name"].value_counts()
    launches = int(calls[[bool(_LAUNCH_CALL.match(name)) for name in calls.index]].sum())
    if launches == 0:
        return None
    version, cuda = trace.info.product_version or "(unknown version)", trace.info.cuda_driver
    reason = (
        f"it is probably too old for CUDA {cuda}" if cuda else "it is probably too old for this CUDA driver"
    )
    return (
        f"nsys {version} recorded {launches} kernel launch calls but not one kernel; {reason}",
        "record with a newer Nsight Systems (https://developer.nvidia.com/nsight-systems)",
    )


def require_gpu_work(trace: Trace) -> None:
    """Raise TraceError, saying what was found instead, if there are no kernels to account for."""
    if missing := missing_kernels(trace):
        raise TraceError(*missing)
    if trace.work.empty and (lost := [one for one in trace.left_out if one.kind != "CUDA call"]):
        found = ", ".join(f"{one.kind}: {one}" for one in lost)
        raise TraceError(f"no GPU work has times that can be true ({found})", _again(trace))
    if trace.work.empty:
        raise TraceError(
            f"{trace.path.name} holds no GPU work ({_inventory(trace)})",
            "trace a program that uses the GPU, with `nsys profile --trace=cuda,nvtx`; with a capture range, "
            "check that the program reached it",
        )
    if elsewhere := _outside(trace):
        raise TraceError(
            elsewhere,
            "record the whole of an iteration; if its kernels are there, the trace's clocks disagree: record "
            "it again",
        )


def _outside(trace: Trace) -> str:
    """Where the work is, if none of it lies in the window that the harness's iterations span."""
    work, outermost = trace.work, iterations(trace.ranges)
    if work.empty or outermost.empty:
        return ""
    window = int(outermost["start_ns"].min()), int(outermost["end_ns"].max())
    if within(work, window).any():
        return ""
    pieces = f"{len(work):,} {'piece' if len(work) == 1 else 'pieces'} of GPU work"
    ran = _from_to(int(work["start_ns"].min()), int(work["end_ns"].max()))
    return f"{pieces}, none within the harness's iter ranges ({_from_to(*window)}): the work ran from {ran}"


def _from_to(start_ns: int, end_ns: int) -> str:
    return f"{start_ns / 1e6:,.1f} to {end_ns / 1e6:,.1f} ms"


def _again(trace: Trace) -> str:
    return f"export it again ({export_command(trace.path)}); if that is no better, record it again"


def warnings(trace: Trace, work: pd.DataFrame, launch: Codes) -> list[str]:
    """Sentences about what the account of this work can't know; `launch` [work] is -1 where unknown."""
    found = [_left_out(one) for one in trace.left_out]
    if missing := missing_kernels(trace):
        found.append(f"{missing[0]}: {missing[1]}. Idle time is not counted")
    elif trace.work.empty:
        found.append(f"no GPU work in the trace ({_inventory(trace)}): phases have host time only")
    elif work.empty:
        found.append(_outside(trace))
    if trace.ranges.empty:
        found.append(_missing_ranges(trace))
    unknown = int(np.count_nonzero(launch < 0))
    if unknown > _UNKNOWN_WORTH_SAYING * len(launch):
        found.append(
            f"{unknown:,} of {len(launch):,} pieces of work have no launch call in the trace: "
            "the gaps before them have cause `unknown` and belong to no phase"
        )
    if conditional_nodes(work).any():
        found.append(_PAUSED)
    if sentence := _too_early(trace, work, launch):
        found.append(sentence)
    return found


def _left_out(rows: LeftOut) -> str:
    calls = rows.kind == "CUDA call"
    effect = "why the device idled before what they launched is unknown" if calls else "they count as idle"
    return (
        f"{rows.count:,} of {rows.rows:,} {rows.kind}s are left out, because their times can't be true "
        f"({rows}): {effect}. Export the report again"
    )


def _too_early(trace: Trace, work: pd.DataFrame, launch: Codes) -> str | None:
    """Work that began before its launch call: the clocks of host and device don't agree."""
    count = worst_ns = 0
    for block in blocks(len(work)):
        known = launch[block] >= 0
        called = trace.api["start_ns"].to_numpy()[launch[block][known]]
        early = called - work["start_ns"].to_numpy()[block][known]
        count += int(np.count_nonzero(early > 0))
        worst_ns = max(worst_ns, int(early.max(initial=0)))
    if count == 0:
        return None
    return (
        f"{count:,} of {len(work):,} pieces of work began before the call that launched them, by up to "
        f"{worst_ns / 1e3:,.1f} µs: the trace's clocks disagree, and causes are uncertain by as much"
    )


def _missing_ranges(trace: Trace) -> str:
    if trace.nvtx_events == 0:
        return (
            "no NVTX ranges in the trace: no phases (record with --trace=cuda,nvtx, and annotate the program)"
        )
    return (
        "NVTX domains but no ranges in the trace: the program's nvtx library is too new for nsys "
        f"{trace.info.product_version} (with Python: pip install nvtx==0.2.11, or use a newer nsys)"
    )


def _inventory(trace: Trace) -> str:
    ranges = f"{len(trace.ranges):,} NVTX ranges"
    if trace.ranges.empty and trace.nvtx_events:
        ranges = f"{trace.nvtx_events:,} NVTX events but no ranges"
    return f"found {ranges}, and {len(trace.api):,} CUDA calls"
