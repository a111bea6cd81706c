"""One typical step of a program, with everything that happened around it on host and device."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from analysis.accounting.account import Account
from analysis.accounting.host import match_launches
from analysis.accounting.kernels import shorten
from analysis.accounting.phases import DECODE_STEP, HARNESS_DOMAIN, ITERATION
from analysis.reading.trace import Trace

_CLOSE_UP_WORK = 12
_FALLBACK_WORK = 40  # pieces of work in the view of a trace without ranges


@dataclass(frozen=True)
class View:
    """A stretch of a trace.

    work: trace.work plus dur_ns, short (name), own (launched by this step), call_start_ns (NaN if unknown).
    calls: trace.api plus launches (bool). gaps: as in Account. parts: the gaps, cut as in Account.segments.
    """

    name: str
    among: int  # how many such steps there are; this is the one of median duration
    start_ns: int
    end_ns: int
    work: pd.DataFrame
    calls: pd.DataFrame
    gaps: pd.DataFrame
    parts: pd.DataFrame
    origin_ns: int  # zero of the time axis: where the whole step starts
    launched_before_ns: int = 0  # how long before its own work began the step had finished launching

    @property
    def span_ns(self) -> int:
        return self.end_ns - self.start_ns

    @property
    def own(self) -> pd.DataFrame:
        return self.work[self.work["own"]]

    @property
    def idle_ns(self) -> int:
        inside = np.minimum(self.gaps["end_ns"], self.end_ns) - np.maximum(
            self.gaps["start_ns"], self.start_ns
        )
        return int(inside.sum())

    def us(self, time_ns: Any) -> Any:
        """Times on the view's axis (scalar or array): µs since the whole step started."""
        return (time_ns - self.origin_ns) / 1e3

    def cut(self, start_ns: int, end_ns: int) -> View:
        """A part of this view."""
        work, calls, gaps, parts = (
            _between(table, start_ns, end_ns) for table in (self.work, self.calls, self.gaps, self.parts)
        )
        return replace(self, start_ns=start_ns, end_ns=end_ns, work=work, calls=calls, gaps=gaps, parts=parts)


def typical_step(trace: Trace, acc: Account) -> View | None:
    """The decode step of median duration, or the iteration where the device repeats the steps by itself; of
    other programs, the most frequent range with GPU work; without ranges, a stretch from the middle of the
    trace. None without GPU work."""
    if acc.devices.empty:
        return None
    launch = match_launches(trace.work, trace.api)
    steps = _step_ranges(trace, acc)
    if steps.empty:
        return _middle(trace, acc, launch)
    by_duration = steps.assign(dur_ns=steps["end_ns"] - steps["start_ns"]).sort_values("dur_ns")
    for row in _from_the_middle(len(steps)):
        step = by_duration.iloc[row]
        own = _launched_by(trace, launch, step)
        if own.any():
            return _view_of(trace, acc, launch, step, own, len(steps))
    return None


def close_up(view: View) -> View | None:
    """A typical stretch of a dozen pieces of work; None if the whole is hardly longer than that."""
    own = view.own.sort_values("start_ns")
    if len(own) < 2 * _CLOSE_UP_WORK:
        return None
    start = own["start_ns"].to_numpy()
    spans = start[_CLOSE_UP_WORK:] - start[:-_CLOSE_UP_WORK]
    first = int(np.argmin(np.abs(spans - np.median(spans))))
    margin = int(spans[first] * 0.04)
    return view.cut(int(start[first]) - margin, int(start[first + _CLOSE_UP_WORK]) - margin)


def _step_ranges(trace: Trace, acc: Account) -> pd.DataFrame:
    """The ranges of the phase whose steps are worth drawing."""
    phases = acc.phases[acc.phases["work"] > 0]
    ours = phases[phases["domain"] == HARNESS_DOMAIN]
    known = (ours[ours["name"] == name] for name in (DECODE_STEP, ITERATION))
    phases = next((found for found in known if len(found)), phases.nlargest(1, "count"))
    if phases.empty:
        return trace.ranges.iloc[:0]
    wanted = phases.iloc[0]
    ranges = trace.ranges
    same = (ranges["domain"] == wanted["domain"]) & (ranges["name"] == wanted["name"])
    return ranges[same & (ranges["start_ns"] < acc.window_ns[1]) & (ranges["end_ns"] > acc.window_ns[0])]


def _from_the_middle(count: int) -> list[int]:
    """0..count-1, nearest to the middle first."""
    return sorted(range(count), key=lambda row: abs(row - (count - 1) / 2))


def _launched_by(trace: Trace, launch: np.ndarray, step: pd.Series) -> np.ndarray:
    """Which work was launched by the step's thread within the step: bool [work]."""
    api = trace.api
    inside = (api["thread"] == step["thread"]) & (api["start_ns"] >= step["start_ns"])
    inside &= api["start_ns"] < step["end_ns"]
    return np.append(inside.to_numpy(), False)[launch]


def _view_of(
    trace: Trace, acc: Account, launch: np.ndarray, step: pd.Series, own: np.ndarray, among: int
) -> View:
    mine = trace.work[own]
    first, last = int(mine["start_ns"].min()), int(mine["end_ns"].max())
    lead = first - int(step["end_ns"])
    start = int(step["start_ns"]) if lead <= 0 else first - (last - first) // 20
    end = max(last, int(step["end_ns"])) if lead <= 0 else last
    called = {DECODE_STEP: "decode step", ITERATION: "iteration"}
    name = f"One {called.get(step['name'], step['name'])}"
    return _build(trace, acc, launch, own, name, among, (start, end), max(lead, 0))


def _middle(trace: Trace, acc: Account, launch: np.ndarray) -> View:
    middle = len(trace.work) // 2
    part = trace.work.iloc[max(middle - _FALLBACK_WORK // 2, 0) : middle + _FALLBACK_WORK // 2]
    span = int(part["start_ns"].min()), int(part["end_ns"].max())
    own = np.ones(len(trace.work), dtype=bool)
    return _build(trace, acc, launch, own, "The middle of the trace", 1, span, 0)


def _build(
    trace: Trace,
    acc: Account,
    launch: np.ndarray,
    own: np.ndarray,
    name: str,
    among: int,
    span: tuple[int, int],
    lead: int,
) -> View:
    call_start = np.append(trace.api["start_ns"].to_numpy(dtype=float), np.nan)[launch]
    work = trace.work.assign(
        dur_ns=trace.work["end_ns"] - trace.work["start_ns"], own=own, call_start_ns=call_start
    )
    work = _between(work, *span)
    work = work.assign(short=shorten(work["name"]))
    calls = trace.api.assign(launches=np.isin(np.arange(len(trace.api)), launch))
    gaps = _between(acc.gaps[acc.gaps["device"].isin(work["device"])], *span)
    parts = acc.segments(gaps.index.to_numpy())
    return View(name, among, *span, work, _between(calls, *span), gaps, parts, span[0], lead)


def _between(table: pd.DataFrame, start_ns: int, end_ns: int) -> pd.DataFrame:
    return table[(table["start_ns"] < end_ns) & (table["end_ns"] > start_ns)]
