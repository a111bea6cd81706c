"""The account of a trace: for each device, busy and idle to the nanosecond, by cause, phase and kernel."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from analysis import diagnose
from analysis.gaps import classify, device_gaps
from analysis.intervals import Ints, covered_ns
from analysis.kernels import attention_backend, attention_counts, kernel_table, shorten
from analysis.phases import (
    HARNESS_DOMAIN,
    ITERATION,
    enclosing_ranges,
    innermost,
    match_launches,
    phase_table,
)
from analysis.trace import Trace, TraceInfo


@dataclass(frozen=True)
class Account:
    """Where the time of a traced window went. All columns ending in `_ns` are integer nanoseconds.

    devices: device, name, window_ns, busy_ns, idle_ns, idle_share, kernels, work, attention_flash … (kernels
        of each attention backend).
    gaps: device, start_ns, end_ns, dur_ns, cause, phase, before, after, api (the call that ended it).
    phases: see `analysis.phases.phase_table`.
    kernels: name, kind, count, total_ns, median_ns, busy_share, phases; the most expensive first.
    """

    window_ns: tuple[int, int]
    devices: pd.DataFrame
    gaps: pd.DataFrame
    phases: pd.DataFrame
    kernels: pd.DataFrame
    warnings: list[str] = field(default_factory=list)

    def phase(self, name: str, domain: str = HARNESS_DOMAIN) -> pd.Series | None:
        """One row of `phases`, or None."""
        rows = self.phases[(self.phases["name"] == name) & (self.phases["domain"] == domain)]
        return rows.iloc[0] if len(rows) else None


def account(trace: Trace) -> Account:
    """Account for every nanosecond of every device between the window's ends.

    The window spans the harness's outermost iterations, or all GPU work where there are none. For each
    device busy + idle = window, and the gaps add up to idle. A trace without GPU work has phases with host
    time only, and a warning.
    """
    ranges, window = _window(trace)
    work = _within(trace.work, window)
    if diagnose.missing_kernels(trace):
        work = work.iloc[:0]  # copies alone would make a busy device look idle
    launch = match_launches(work, trace.api)
    enclosing = _launched_in(ranges, trace.api, launch)
    phase = _take(pd.Categorical(ranges["name"]), innermost(ranges, enclosing))
    names = shorten(work["name"])

    gaps = device_gaps(work, window)
    gaps["cause"] = classify(gaps, work, trace.api, launch)
    backend = attention_backend(work["name"])
    phases = phase_table(ranges, work, enclosing, gaps, backend)
    devices = _device_table(work, backend, window, trace.info)
    return Account(
        window_ns=window,
        devices=devices,
        gaps=_describe(gaps, names, phase, trace.api, launch),
        phases=phases,
        kernels=kernel_table(names, phase, work, int(devices["busy_ns"].sum())),
        warnings=diagnose.warnings(trace, launch),
    )


def _window(trace: Trace) -> tuple[pd.DataFrame, tuple[int, int]]:
    """The ranges that count, and the window [start, end) in ns."""
    ranges, work = trace.ranges, trace.work
    iterations = ranges[(ranges["domain"] == HARNESS_DOMAIN) & (ranges["name"] == ITERATION)]
    span = next((table for table in (iterations, work, ranges) if len(table)), None)
    if span is None:
        return ranges, (0, 0)
    window = int(span["start_ns"].min()), int(span["end_ns"].max())
    if len(iterations):
        inside = (ranges["start_ns"] < window[1]) & (ranges["end_ns"] > window[0])
        ranges = ranges[inside].reset_index(drop=True)
    return ranges, window


def _within(work: pd.DataFrame, window: tuple[int, int]) -> pd.DataFrame:
    """The work that overlaps the window, cut at its ends."""
    inside = (work["start_ns"] < window[1]) & (work["end_ns"] > window[0])
    work = work[inside].reset_index(drop=True)
    work["start_ns"] = work["start_ns"].clip(lower=window[0])
    work["end_ns"] = work["end_ns"].clip(upper=window[1])
    return work


def _launched_in(ranges: pd.DataFrame, api: pd.DataFrame, launch: Ints) -> Ints:
    """Rows of `ranges` open around each work's launch call, outermost first, -1 for none."""
    levels = int(ranges["depth"].max()) + 1 if len(ranges) else 0
    enclosing = np.full((len(launch), levels), -1, dtype=np.int64)
    known = launch >= 0
    calls = api.iloc[launch[known]]
    enclosing[known] = enclosing_ranges(ranges, calls["thread"].to_numpy(), calls["start_ns"].to_numpy())
    return enclosing


def _device_table(
    work: pd.DataFrame, backend: pd.Categorical, window: tuple[int, int], info: TraceInfo
) -> pd.DataFrame:
    code, device = pd.factorize(work["device"], sort=True)
    code = code.astype(np.int64)
    start, end = work["start_ns"].to_numpy(), work["end_ns"].to_numpy()
    names = {gpu.id: gpu.name for gpu in info.gpus}
    table = pd.DataFrame(
        {
            "device": np.asarray(device, dtype=np.int64),
            "name": [names.get(int(one), "") for one in device],
            "window_ns": window[1] - window[0],
            "busy_ns": covered_ns(code, start, end, len(device)),
        }
    )
    table["idle_ns"] = table["window_ns"] - table["busy_ns"]
    table["idle_share"] = table["idle_ns"] / table["window_ns"]
    is_kernel = work["kind"].isin(["kernel", "graph"]).to_numpy()
    table["kernels"] = np.bincount(code[is_kernel], minlength=len(device))
    table["work"] = np.bincount(code, minlength=len(device))
    return table.join(attention_counts(backend, code, len(device)))


def _describe(
    gaps: pd.DataFrame, names: pd.Categorical, phase: pd.Categorical, api: pd.DataFrame, launch: Ints
) -> pd.DataFrame:
    """Names instead of rows of the work: what ran before and after, which call ended it, in which phase."""
    before, after = gaps["before_row"].to_numpy(), gaps["after_row"].to_numpy()
    described = gaps.drop(columns=["before_row", "after_row"])
    described["phase"] = _take(phase, after)
    described["before"] = _take(names, before)
    described["after"] = _take(names, after)
    described["api"] = _take(pd.Categorical(api["name"]), np.append(launch, -1)[after])
    return described


def _take(names: pd.Categorical, row: Ints) -> pd.Categorical:
    """The names at these rows, NA for row -1."""
    return pd.Categorical.from_codes(np.append(names.codes, -1)[row], dtype=names.dtype)
