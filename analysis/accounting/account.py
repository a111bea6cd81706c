"""The account of a trace: for each device, busy and idle to the nanosecond, by cause, phase and kernel."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import islice

import numpy as np
import pandas as pd

from analysis import diagnose
from analysis.accounting.causes import CAUSE_COLUMNS, CAUSES, Blame
from analysis.accounting.gaps import Gaps, find_gaps
from analysis.accounting.host import match_launches
from analysis.accounting.kernels import attention_counts, is_kernel, kernel_table, shorten
from analysis.accounting.phases import HARNESS_DOMAIN, Phases, iterations, within
from analysis.accounting.stretches import Stretches
from analysis.engine.collection import postponed
from analysis.engine.grouping import Codes, blocks, duration_type, durations, runs, tally, zero_column
from analysis.engine.intervals import Ints
from analysis.engine.parallel import at_once, in_threads, threads
from analysis.reading.trace import Trace, TraceInfo


@dataclass(frozen=True)
class ByStretch:
    """The account by stretches of the host's time, for whatever repetition is asked for later.

    rows: which of the trace's work lies in the window. stretch_of_work [these]: where it was launched.
    idle_ns [stretches, causes]: a gap is its whose work ended it.
    """

    stretches: Stretches
    rows: Codes | slice
    stretch_of_work: Codes
    idle_ns: Ints


@dataclass(frozen=True)
class Account:
    """Where the time of a traced window went. All columns ending in `_ns` are integer nanoseconds.

    devices: device, name, window_ns, busy_ns, idle_ns, idle_share, kernels, work, host_ns … unknown_ns (idle
        time by cause, see `causes`), attention_flash … (kernels of each attention backend).
    gaps: device, start_ns, end_ns, dur_ns, cause (the one with most of it), phase, before, after (what ran),
        before_row, after_row (rows of the trace's work, -1 at the ends), api (the call that ended it).
    phases: domain, name, count, wall_ns (host time inside), busy_ns (union of its work, per device), idle_ns
        (the gaps that its work ended), idle_share = idle / (idle + busy), kernels, work (kernels, copies,
        memsets), gap_median_ns, gap_p90_ns (NaN without gaps), host_ns … unknown_ns, attention_flash ….
        Phases that enclose others include them.
    kernels: name, shape, kind, count, total_ns, median_ns, busy_share, phases; the most expensive first.
    """

    window_ns: tuple[int, int]
    devices: pd.DataFrame
    gaps: pd.DataFrame
    phases: pd.DataFrame
    kernels: pd.DataFrame
    warnings: list[str] = field(default_factory=list)
    by_stretch: ByStretch = field(kw_only=True, repr=False, compare=False)
    _blame: Blame | None = field(default=None, repr=False, compare=False)

    def phase(self, name: str, domain: str = HARNESS_DOMAIN) -> pd.Series | None:
        """One row of `phases`, or None."""
        rows = self.phases[(self.phases["name"] == name) & (self.phases["domain"] == domain)]
        return rows.iloc[0] if len(rows) else None

    def launches(self, gaps: Ints) -> Codes:
        """The CUDA calls, rows of the trace's, that launched what ended these rows of `gaps`; -1: unknown."""
        if self._blame is None:
            return np.full(len(gaps), -1, dtype=np.int32)
        return self._blame.launches(np.asarray(gaps, dtype=np.int64))

    def segments(self, gaps: Ints) -> pd.DataFrame:
        """These rows of `gaps`, cut at the borders between causes.

        Columns: gap (row of `gaps`), start_ns, end_ns, dur_ns, cause; in order of time within a gap.
        """
        if self._blame is None or len(gaps) == 0:
            columns = ["gap", "start_ns", "end_ns", "dur_ns", "cause"]
            return pd.DataFrame({name: pd.Series(dtype=np.int64) for name in columns})
        parts = self._blame.cut(np.asarray(gaps, dtype=np.int64))
        return pd.DataFrame(
            {
                "gap": parts.gap,
                "start_ns": parts.start_ns,
                "end_ns": parts.end_ns,
                "dur_ns": parts.end_ns - parts.start_ns,
                "cause": pd.Categorical.from_codes(parts.cause, pd.Index(CAUSES)),
            }
        )


@postponed()
def account(trace: Trace) -> Account:
    """Account for every nanosecond of every device between the window's ends.

    The window spans the harness's outermost iterations, or all GPU work where there are none. For each
    device busy + idle = window, the gaps add up to idle, and so do the causes. A trace without GPU work has
    phases with host time only, and a warning.
    """
    trace.read()
    ranges, window = _window(trace)
    work = _within(trace.work, window)
    if diagnose.missing_kernels(trace):
        work = work.iloc[:0]  # copies alone would make a busy device look idle
    found, launched = at_once(lambda: find_gaps(work, window), lambda: match_launches(trace.work, trace.api))
    rows = work["row"].to_numpy() if "row" in work else slice(len(work))
    launch = launched[rows]
    phases = Phases.of(ranges, trace.api, launch)
    kernels = kernel_table(
        shorten(work["name"]), phases.name_of(phases.stretch_of_work), work, _busy_ns(work, found, window)
    )
    blame = Blame(trace, _in_trace(found, work), launched)
    cause, by_device, by_stretch = _split(found, blame, phases)
    return Account(
        window_ns=window,
        devices=_device_table(work, found, by_device, window, trace.info),
        phases=_phase_table(phases, work, found, by_stretch),
        gaps=_gap_table(found, work, cause, phases, trace.api, launch),
        kernels=kernels,
        warnings=diagnose.warnings(trace, work, launch),
        by_stretch=ByStretch(phases.stretches, rows, phases.stretch_of_work, by_stretch),
        _blame=blame,
    )


def _window(trace: Trace) -> tuple[pd.DataFrame, tuple[int, int]]:
    """The ranges that count, and the window [start, end) in ns."""
    ranges, work = trace.ranges, trace.work
    outermost = iterations(ranges)
    span = next((table for table in (outermost, work, ranges) if len(table)), None)
    if span is None:
        return ranges, (0, 0)
    window = int(span["start_ns"].min()), int(span["end_ns"].max())
    if len(outermost):
        inside = (ranges["start_ns"] < window[1]) & (ranges["end_ns"] > window[0])
        ranges = ranges[inside].reset_index(drop=True)
    return ranges, window


def _within(work: pd.DataFrame, window: tuple[int, int]) -> pd.DataFrame:
    """The work that overlaps the window, cut at its ends; the same table if all of it lies inside.

    Otherwise a column `row` says which of the trace's work it is.
    """
    start, end = work["start_ns"].to_numpy(), work["end_ns"].to_numpy()
    if len(work) == 0 or (start.min() >= window[0] and end.max() <= window[1]):
        return work
    row = np.flatnonzero(within(work, window)).astype(np.int32)
    work = work.iloc[row].reset_index(drop=True)
    work["row"] = row
    work["start_ns"] = work["start_ns"].clip(lower=window[0])
    work["end_ns"] = work["end_ns"].clip(upper=window[1])
    return work


def _busy_ns(work: pd.DataFrame, gaps: Gaps, window: tuple[int, int]) -> int:
    """Of all devices together."""
    devices = len(runs(work["device"].to_numpy())[0])
    idle = sum(int((gaps.end_ns[block] - gaps.start_ns[block]).sum()) for block in blocks(len(gaps)))
    return devices * (window[1] - window[0]) - idle


def _split(gaps: Gaps, blame: Blame, phases: Phases) -> tuple[np.ndarray, Ints, Ints]:
    """The dominant cause of each gap, and idle time by cause: [devices, causes] and [stretches, causes].

    Devices are numbered in ascending order; the last stretch stands for gaps that no phase's work ended.
    """
    devices, first = runs(gaps.device)
    device = np.repeat(np.arange(len(devices), dtype=np.int16), np.diff(first))
    cause = np.empty(len(gaps), dtype=np.int8)

    def every(nth: int) -> tuple[Ints, Ints]:
        by_device, by_stretch = (
            np.zeros((groups, len(CAUSES)), dtype=np.int64)
            for groups in (len(devices), len(phases.stretches))
        )
        for rows in islice(blame.chunks(), nth, None, workers):
            blame.cut(rows).tally(gaps, device, phases.stretch_of_work, by_device, by_stretch, cause)
        return by_device, by_stretch

    workers = threads()
    by_device, by_stretch = zip(*in_threads(every, range(workers)), strict=True)
    return cause, sum(by_device[1:], by_device[0]), sum(by_stretch[1:], by_stretch[0])


def _device_table(
    work: pd.DataFrame, gaps: Gaps, by_cause: Ints, window: tuple[int, int], info: TraceInfo
) -> pd.DataFrame:
    device, first = runs(work["device"].to_numpy())
    place = np.searchsorted(device, runs(gaps.device)[0])
    spent = np.zeros((len(device), len(CAUSES)), dtype=np.int64)
    spent[place] = by_cause
    idle = spent.sum(axis=1)
    names = {gpu.id: gpu.name for gpu in info.gpus}
    table = pd.DataFrame(
        {
            "device": device.astype(np.int64),
            "name": [names.get(int(one), "") for one in device],
            "window_ns": window[1] - window[0],
            "busy_ns": window[1] - window[0] - idle,
            "idle_ns": idle,
        }
    )
    table["idle_share"] = table["idle_ns"] / table["window_ns"]
    group = np.repeat(np.arange(len(device), dtype=np.int16), np.diff(first))
    table["kernels"] = tally(group, len(device), is_kernel(work))
    table["work"] = np.diff(first)
    table[CAUSE_COLUMNS] = spent
    return table.join(attention_counts(work["name"].array, group, len(device)))


def _phase_table(phases: Phases, work: pd.DataFrame, gaps: Gaps, by_stretch: Ints) -> pd.DataFrame:
    """See `Account.phases`."""
    table = phases.names.copy()
    count = len(phases.stretches)
    stretch = phases.stretch_of_work
    by_cause = phases.total(by_stretch)
    table["wall_ns"] = phases.wall_ns()
    table["busy_ns"] = phases.busy_ns(work)
    table["idle_ns"] = by_cause.sum(axis=1)
    active = table["busy_ns"] + table["idle_ns"]
    table["idle_share"] = table["idle_ns"] / active.where(active > 0)
    table["kernels"] = phases.total(tally(stretch, count, is_kernel(work)))
    table["work"] = phases.total(tally(stretch, count))
    quantiles = [_median_and_p90(_lengths(gaps, stretch, member)) for member in phases.members()]
    table[["gap_median_ns", "gap_p90_ns"]] = np.array(quantiles, dtype=float).reshape(-1, 2)
    table[CAUSE_COLUMNS] = by_cause
    attention = attention_counts(work["name"].array, stretch, count)
    return table.join(pd.DataFrame(phases.total(attention.to_numpy()), columns=attention.columns))


def _lengths(gaps: Gaps, stretch: Codes, member: np.ndarray) -> np.ndarray:
    """Of the gaps that end with work of these stretches (bool, the last for no work), ns."""
    lengths, count = zero_column(len(gaps), duration_type(gaps.start_ns, gaps.end_ns)), 0
    for block in blocks(len(gaps)):
        mine = member[_at(stretch, gaps.after[block], len(member) - 1)]
        part = (gaps.end_ns[block] - gaps.start_ns[block])[mine]
        lengths[count : count + len(part)] = part
        count += len(part)
    return lengths[:count]


def _median_and_p90(lengths: np.ndarray) -> tuple[float, float]:
    if len(lengths) == 0:
        return np.nan, np.nan
    lengths.sort()  # faster than selecting
    place = np.array([0.5, 0.9]) * (len(lengths) - 1)
    low = place.astype(np.int64)
    high = np.minimum(low + 1, len(lengths) - 1)
    median, p90 = lengths[low] + (place - low) * (lengths[high] - lengths[low])
    return float(median), float(p90)


def _gap_table(
    gaps: Gaps, work: pd.DataFrame, cause: np.ndarray, phases: Phases, api: pd.DataFrame, launch: Codes
) -> pd.DataFrame:
    """See `Account.gaps`: names instead of rows of the work."""
    return pd.DataFrame(
        {
            "device": gaps.device,
            "start_ns": gaps.start_ns,
            "end_ns": gaps.end_ns,
            "dur_ns": durations(gaps.start_ns, gaps.end_ns),
            "cause": pd.Categorical.from_codes(cause, pd.Index(CAUSES)),
            "phase": _take(phases.name_of(phases.stretch_of_work), gaps.after),
            "before": shorten(_take(work["name"].array, gaps.before)),
            "after": shorten(_take(work["name"].array, gaps.after)),
            "before_row": _in_trace(gaps, work).before,
            "after_row": _in_trace(gaps, work).after,
            "api": _take(_take(api["name"].array, launch), gaps.after),
        },
        copy=False,
    )


def _in_trace(gaps: Gaps, work: pd.DataFrame) -> Gaps:
    """The same gaps with rows of the trace's work instead of the window's."""
    if "row" not in work:
        return gaps
    rows = np.append(work["row"].to_numpy(np.int32), np.int32(-1))
    return replace(gaps, before=rows[gaps.before], after=rows[gaps.after])


def _take(names: pd.Categorical, row: Codes) -> pd.Categorical:
    """The names at these rows, NA for row -1."""
    return pd.Categorical.from_codes(_at(names.codes, row, -1), dtype=names.dtype)


def _at(values: np.ndarray, row: Codes, otherwise: int) -> np.ndarray:
    """values[row], and something else for row -1."""
    found = zero_column(len(row), values.dtype)
    found[:] = otherwise
    for block in blocks(len(row)) if len(values) else ():
        part = row[block]
        found[block] = np.where(part >= 0, values[part], found[block])
    return found
