"""Where one unit of a run went: a token of its decode phase, or its whole window."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.accounting.account import Account
from analysis.accounting.phases import DECODE, DECODE_STEP, HARNESS_DOMAIN
from analysis.headline import Interval, focus, overlapping
from analysis.reading.trace import Trace
from analysis.units import significant

BUSY = "busy"
_LAUNCH_CALLS = "Launch"  # cudaLaunchKernel, cuLaunchKernelEx, cudaGraphLaunch …
_MENTIONED = 3  # causes in a sentence
_WORTH_SAYING = 0.02  # of the difference
_ALIKE = 0.02  # tokens whose times differ by less are not compared
_TIMES_FROM = 1.1  # a ratio below is told in per cent


@dataclass(frozen=True)
class Breakdown:
    """One bar of the report.

    parts_ns: busy time and idle time by cause, summed over `devices` GPUs; they add up to the traced time of
    `units`. tokens: whether `units` counts decode steps or tokens; otherwise it is 1, the decode phases or
    the traced window. kernels, launch_calls: of all units; launch_calls is None where the trace has no calls
    of the host. graphs: how many of `kernels` are CUDA graphs that were traced as one piece each: what is
    inside counts as busy. note: what limits its meaning.
    """

    label: str
    parts_ns: Mapping[str, int]
    units: int
    tokens: bool
    kernels: int
    launch_calls: int | None
    unprofiled_ms: float | None = None  # of a token
    note: str = ""
    graphs: int = 0
    unprofiled_interval: Interval | None = None  # 95%, ms
    devices: int = 1

    @property
    def total_ns(self) -> int:
        return sum(self.parts_ns.values())

    @property
    def idle_share(self) -> float:
        return 1 - self.parts_ns[BUSY] / max(self.total_ns, 1)

    @property
    def profiled_longer(self) -> float:
        """How much longer a unit takes in the trace than without the profiler, as a share; NaN if unknown."""
        return self.ms() / self.unprofiled_ms - 1 if self.unprofiled_ms else math.nan

    def ms(self, part: str | None = None) -> float:
        """Traced time of one unit, or of one part of it; of several GPUs their average."""
        ns = self.total_ns if part is None else self.parts_ns[part]
        return ns / self.units / self.devices / 1e6

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
        launch_calls=_launch_calls(trace, acc),
        unprofiled_ms=unprofiled_ms,
        note=note,
        graphs=part.graphs,
        devices=part.devices,
    )


def difference(one: Breakdown, other: Breakdown) -> list[str]:
    """Why `one` and `other` don't take the same time, in sentences.

    Causes are told where the traces' difference is one without the profiler, too; nothing is, where the
    trace of one has no tokens and no time of a token is known without the profiler.
    """
    plain = _unprofiled(one, other)
    if not (one.tokens and other.tokens):
        return plain
    fast, slow = sorted((one, other), key=Breakdown.ms)
    times = (
        f"A traced token of {fast.label} takes {significant(fast.ms())} ms, one of {slow.label} "
        f"{significant(slow.ms())} ms"
    )
    if slow.ms() - fast.ms() < _ALIKE * slow.ms():
        traced = [
            f"A traced token of {one.label} takes as long as one of {other.label}, within {_ALIKE:.0%}."
        ]
    elif _only_traced(fast, slow):
        traced = [f"{times}. {_unexplained(fast, slow)}"]
    else:
        traced = [f"{times}. {_explained(fast, slow)}"]
    return [sentence for sentence in [*traced, _launches(fast, slow), *plain] if sentence]


def _unprofiled(one: Breakdown, other: Breakdown) -> list[str]:
    """The times without the profiler, as one sentence; none where one of the two is unknown."""
    fast, slow = sorted((one, other), key=lambda bar: bar.unprofiled_ms or 0.0)
    if not (fast.unprofiled_ms and slow.unprofiled_ms):
        return []
    ratio = slow.unprofiled_ms / fast.unprofiled_ms
    times = (
        f"Without the profiler a token of {fast.label} takes {significant(fast.unprofiled_ms)} ms, one of "
        f"{slow.label} {significant(slow.unprofiled_ms)} ms"
    )
    if 1 - 1 / ratio < _ALIKE:
        return [f"{times}: alike within {_ALIKE:.0%}."]
    if _noise(fast, slow):
        return [f"{times}: a difference within the noise."]
    faster = f"{ratio:.1f} times as fast" if ratio >= _TIMES_FROM else f"{ratio - 1:.0%} faster"
    return [f"{times}: {fast.label} is {faster}."]


def _only_traced(fast: Breakdown, slow: Breakdown) -> bool:
    """Whether what the traces say is not known to be so without the profiler, where both were timed."""
    if not (fast.unprofiled_ms and slow.unprofiled_ms):
        return False
    alike = slow.unprofiled_ms - fast.unprofiled_ms < _ALIKE * slow.unprofiled_ms
    return alike or _noise(fast, slow)


def _noise(one: Breakdown, other: Breakdown) -> bool:
    """Whether the intervals of their times without the profiler overlap, as far as they are known."""
    return overlapping(one.unprofiled_interval, other.unprofiled_interval)


def _unexplained(fast: Breakdown, slow: Breakdown) -> str:
    costs = " and ".join(f"{bar.profiled_longer:+.0%} for {bar.label}" for bar in (fast, slow))
    clearly = "clearly " if _noise(fast, slow) else ""
    return (
        f"That is not {clearly}so without the profiler, whose cost differs ({costs}), so what the traces "
        f"differ in is not explained here; the GPU's own work of {fast.label} takes "
        f"{_work(slow.ms(BUSY) - fast.ms(BUSY))}."
    )


def _explained(fast: Breakdown, slow: Breakdown) -> str:
    saved = slow.ms() - fast.ms()
    by_part = {part: slow.ms(part) - fast.ms(part) for part in fast.parts_ns}
    graphs = " and ".join(bar.label for bar in (fast, slow) if bar.graphs)
    inside = f", with the gaps inside the graphs of {graphs} counted as work" if graphs else ""
    return (
        f"{_saved(fast.label, saved, saved - by_part[BUSY])}{_causes(by_part, saved)}; the GPU's own work "
        f"takes {_work(by_part[BUSY])}{inside}."
    )


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
    if any(bar.launch_calls is None and not bar.graphs for bar in (fast, slow)):
        return ""
    return f"{_launched(fast)}, {_launched(slow)}."


def _launched(bar: Breakdown) -> str:
    """What one launches with how many calls: kernels of a token, or whole graphs of all its tokens."""
    if bar.graphs:
        graphs = "1 graph" if bar.graphs == 1 else f"{bar.graphs:,} graphs"
        return f"{bar.label} launches {graphs} for {bar.units:,} tokens"
    kernels, calls = (f"{bar.per_unit(n):,.0f}" for n in (bar.kernels, bar.launch_calls or 0))
    noun = "kernel" if kernels == "1" else "kernels"
    with_calls = f"{calls} launch {'call' if calls == '1' else 'calls'}"
    return f"{bar.label} launches {kernels} {noun} a token with {with_calls}"


def _launch_calls(trace: Trace, acc: Account) -> int | None:
    """Launch calls in the decode steps, in the decode phases where they have none, or in the window."""
    api = trace.api
    if api.empty:
        return None
    names = api["name"].cat
    launches = api[np.isin(names.codes, np.flatnonzero(names.categories.str.contains(_LAUNCH_CALLS)))]
    spans = next((s for s in (_spans(trace, acc, name) for name in (DECODE_STEP, DECODE)) if len(s)), None)
    if spans is None:
        inside = launches["start_ns"].between(*acc.window_ns)
        return int(inside.sum())
    count = 0
    for thread, steps in spans.groupby("thread"):
        times = launches.loc[launches["thread"] == thread, "start_ns"].to_numpy()
        row = np.searchsorted(steps["start_ns"].to_numpy(), times, side="right") - 1
        count += int(((row >= 0) & (times < steps["end_ns"].to_numpy()[row])).sum())
    return count


def _spans(trace: Trace, acc: Account, name: str) -> pd.DataFrame:
    """The phases of that name within the window, by start; none if they launched no work."""
    row, ranges = acc.phase(name), trace.ranges
    if row is None or row["work"] == 0:
        return ranges.iloc[:0]
    ours = ranges[(ranges["domain"] == HARNESS_DOMAIN) & (ranges["name"] == name)]
    start, end = acc.window_ns
    return ours[(ours["start_ns"] < end) & (ours["end_ns"] > start)].sort_values("start_ns")
