"""Where one unit of a run went: a token of its decode phase, or its whole window."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.accounting.account import Account
from analysis.accounting.phases import DECODE_STEP, HARNESS_DOMAIN
from analysis.headline import focus
from analysis.reading.trace import Trace
from analysis.units import significant

BUSY = "busy"
_LAUNCH_CALLS = "Launch"  # cudaLaunchKernel, cuLaunchKernelEx, cudaGraphLaunch …
_MENTIONED = 3  # causes in a sentence
_WORTH_SAYING = 0.02  # of the difference
_ALIKE = 0.02  # tokens whose times differ by less are not compared


@dataclass(frozen=True)
class Breakdown:
    """One bar of the report.

    parts_ns: busy time and idle time by cause; they add up to the traced time of `units`. tokens: whether
    `units` counts decode steps; otherwise it is 1, the traced window. kernels, launch_calls: of all units;
    launch_calls is None where the trace has no calls of the host. note: what limits its meaning.
    """

    label: str
    parts_ns: Mapping[str, int]
    units: int
    tokens: bool
    kernels: int
    launch_calls: int | None
    unprofiled_ms: float | None = None  # of a token
    note: str = ""

    @property
    def total_ns(self) -> int:
        return sum(self.parts_ns.values())

    @property
    def idle_share(self) -> float:
        return 1 - self.parts_ns[BUSY] / max(self.total_ns, 1)

    def ms(self, part: str | None = None) -> float:
        """Traced time of one unit, or of one part of it."""
        return (self.total_ns if part is None else self.parts_ns[part]) / self.units / 1e6

    def per_unit(self, count: int) -> float:
        return count / self.units


def breakdown(
    trace: Trace, acc: Account, label: str, unprofiled_ms: float | None = None, note: str = ""
) -> Breakdown:
    """The bar of one trace that has GPU work."""
    part = focus(acc)
    return Breakdown(
        label=label,
        parts_ns={BUSY: part.busy_ns, **part.cause_ns},
        units=part.steps or 1,
        tokens=part.steps > 0,
        kernels=part.kernels,
        launch_calls=_launch_calls(trace, acc, part.steps > 0),
        unprofiled_ms=unprofiled_ms,
        note=note,
    )


def difference(one: Breakdown, other: Breakdown) -> list[str]:
    """Why `one` and `other` don't take the same time, in sentences; nothing unless both count tokens."""
    if not (one.tokens and other.tokens):
        return []
    fast, slow = sorted((one, other), key=Breakdown.ms)
    saved = slow.ms() - fast.ms()
    by_part = {part: slow.ms(part) - fast.ms(part) for part in fast.parts_ns}
    if saved < _ALIKE * slow.ms():
        return [f"A traced token of {one.label} takes as long as one of {other.label}, within {_ALIKE:.0%}."]
    sentences = [
        f"A traced token of {fast.label} takes {significant(fast.ms())} ms, one of {slow.label} "
        f"{significant(slow.ms())} ms. {_saved(fast.label, saved, saved - by_part[BUSY])}"
        f"{_causes(by_part, saved)}; the GPU's own work takes {_work(by_part[BUSY])}.",
        _launches(fast, slow),
    ]
    if fast.unprofiled_ms and slow.unprofiled_ms:
        ratio = slow.unprofiled_ms / fast.unprofiled_ms
        sentences.append(
            f"Without the profiler it is {significant(fast.unprofiled_ms)} ms against "
            f"{significant(slow.unprofiled_ms)} ms, {ratio:.1f} times as long."
        )
    return [sentence for sentence in sentences if sentence]


def _saved(fast: str, saved_ms: float, idle_ms: float) -> str:
    if idle_ms < 0:
        return f"The GPU of {fast} idles {significant(-idle_ms)} ms more"
    share = f" ({idle_ms / saved_ms:.0%})" if idle_ms <= saved_ms else ""
    return (
        f"Of the {significant(saved_ms)} ms between them, {significant(idle_ms)} ms{share} is less idle time"
    )


def _causes(by_part: Mapping[str, float], saved: float) -> str:
    worth = {p: ms for p, ms in by_part.items() if p != BUSY and ms > _WORTH_SAYING * saved}
    most = sorted(worth.items(), key=lambda item: -item[1])[:_MENTIONED]
    return f" ({', '.join(f'{cause} {significant(ms)} ms' for cause, ms in most)})" if most else ""


def _work(saved_ms: float) -> str:
    if abs(saved_ms) < 0.001:
        return "as long in both"
    return f"{significant(abs(saved_ms))} ms {'less' if saved_ms > 0 else 'more'}"


def _launches(fast: Breakdown, slow: Breakdown) -> str:
    if fast.launch_calls is None or slow.launch_calls is None:
        return ""
    calls, kernels = (
        [f"{b.per_unit(n):,.0f}" for b, n in pairs]
        for pairs in (
            [(fast, fast.launch_calls), (slow, slow.launch_calls)],
            [(fast, fast.kernels), (slow, slow.kernels)],
        )
    )
    return (
        f"{fast.label} launches its {kernels[0]} kernels a token with {calls[0]} launch "
        f"{'call' if calls[0] == '1' else 'calls'}, {slow.label} its {kernels[1]} with {calls[1]}."
    )


def _launch_calls(trace: Trace, acc: Account, in_steps: bool) -> int | None:
    """Launch calls in the decode steps, or in the window."""
    api = trace.api
    if api.empty:
        return None
    names = api["name"].cat
    launches = api[np.isin(names.codes, np.flatnonzero(names.categories.str.contains(_LAUNCH_CALLS)))]
    spans = _steps(trace, acc) if in_steps else None
    if spans is None:
        inside = launches["start_ns"].between(*acc.window_ns)
        return int(inside.sum())
    count = 0
    for thread, steps in spans.groupby("thread"):
        times = launches.loc[launches["thread"] == thread, "start_ns"].to_numpy()
        row = np.searchsorted(steps["start_ns"].to_numpy(), times, side="right") - 1
        count += int(((row >= 0) & (times < steps["end_ns"].to_numpy()[row])).sum())
    return count


def _steps(trace: Trace, acc: Account) -> pd.DataFrame:
    """The decode steps within the window, by start."""
    ranges = trace.ranges
    ours = ranges[(ranges["domain"] == HARNESS_DOMAIN) & (ranges["name"] == DECODE_STEP)]
    start, end = acc.window_ns
    return ours[(ours["start_ns"] < end) & (ours["end_ns"] > start)].sort_values("start_ns")
