"""What dominates, in one sentence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis.accounting.account import Account
from analysis.accounting.causes import CAUSES
from analysis.accounting.phases import DECODE, DECODE_STEP, HARNESS_DOMAIN
from analysis.units import percent, significant

_IS = {
    "host": "is host code between CUDA calls",
    "sync": "is the host waiting in synchronising calls",
    "api": "is CUDA calls that launch nothing",
    "launch": "is the launches themselves, from call to start",
    "dependency": "waits for another stream or an event",
    "graph": "lies between nodes of CUDA graphs",
    "dispatch": "is the device taking up work launched in time",
    "profiler": "is the profiler's own overhead",
    "unknown": "has no cause that the trace could tell",
}
Interval = tuple[float, float]

_WORTH_A_CAUSE = 0.005  # share of idle time below which it doesn't matter what it waits for


@dataclass(frozen=True)
class Focus:
    """The part of a trace that its figures and its headline speak about.

    gaps: rows of `Account.gaps`; cause_ns: its idle time by cause; steps: its decode steps, 0 if it has none;
    kernels: those of the steps, where it has some; graphs: how many of them are CUDA graphs that were traced
    as one piece each, so that the kernels and gaps inside are unknown; devices: how many GPUs its times are
    summed over.
    """

    name: str  # "the decode phase", "the traced window"
    gaps: pd.DataFrame
    busy_ns: int
    cause_ns: Mapping[str, int]
    kernels: int
    steps: int
    graphs: int
    devices: int

    @property
    def whole_graphs(self) -> bool:
        return self.graphs > 0

    @property
    def idle_ns(self) -> int:
        return sum(self.cause_ns.values())

    @property
    def total_ns(self) -> int:
        return self.idle_ns + self.busy_ns

    @property
    def idle_share(self) -> float:
        return self.idle_ns / max(self.total_ns, 1)


def focus(acc: Account) -> Focus:
    """The harness's decode phase where the trace has one with GPU work, otherwise the whole window."""
    step = acc.phase(DECODE_STEP)
    steps = int(step["count"]) if step is not None and step["work"] > 0 else 0
    for name in (DECODE, DECODE_STEP):
        row = acc.phase(name)
        if row is not None and row["work"] > 0:
            ours = acc.gaps["phase"].astype(object).fillna("")
            gaps = acc.gaps[(ours == DECODE) | ours.str.startswith("decode.")]
            what = "the decode phase" if name == DECODE else "the decode steps"
            graphs = _whole_graphs(acc)
            decoding = [any(name.split(".")[0] == DECODE for name in names) for names in graphs["phases"]]
            # Between its steps a decode phase launches a few kernels more.
            kernels = int((step if step is not None and steps else row)["kernels"])
            whole = int(graphs.loc[decoding, "count"].sum())
            devices = max(gaps["device"].nunique(), 1)
            return Focus(what, gaps, int(row["busy_ns"]), cause_ns(row), kernels, steps, whole, devices)
    busy, kernels = int(acc.devices["busy_ns"].sum()), int(acc.devices["kernels"].sum())
    causes, whole = cause_ns(acc.devices.sum(numeric_only=True)), int(_whole_graphs(acc)["count"].sum())
    return Focus("the traced window", acc.gaps, busy, causes, kernels, 0, whole, len(acc.devices))


def _whole_graphs(acc: Account) -> pd.DataFrame:
    """Rows of `Account.kernels`: the graphs that were traced as one piece each."""
    return acc.kernels[acc.kernels["kind"] == "graph"]


def cause_ns(row: Mapping[Any, Any] | pd.Series) -> dict[str, int]:
    """Idle time by cause, of a row of `Account.devices` or `Account.phases`."""
    return {cause: int(row[f"{cause}_ns"]) for cause in CAUSES}


def headline(acc: Account, ms_per_token: float | None = None) -> str:
    """Like "The GPU idles 88% of the decode phase: 93% of that is host code between CUDA calls; a decode
    step takes 393 kernels, a token 6.84 ms".

    ms_per_token: measured without a profiler; without it the traced time is given, and called so.
    """
    if acc.devices.empty:
        ranges = int((acc.phases["domain"] == HARNESS_DOMAIN).sum())
        phases = f"{ranges} phase{'' if ranges == 1 else 's'}"
        return f"No GPU work in the traced window: {phases} with host time only"
    part = focus(acc)
    who = "The GPU idles" if part.devices == 1 else f"The {part.devices} GPUs idle"
    sentence = f"{who} {percent(part.idle_share)} of {part.name}"
    if part.whole_graphs:
        sentence += ", not counting gaps inside its CUDA graphs, which were traced as one piece each"
    if part.idle_share >= _WORTH_A_CAUSE:
        cause, most = max(part.cause_ns.items(), key=lambda item: item[1])
        share = most / part.idle_ns
        sentence += f": {'nearly all' if share > 0.995 else f'{share:.0%}'} of that {_IS[cause]}"
    if not part.steps:
        return (
            sentence if ms_per_token is None else f"{sentence}; a token takes {significant(ms_per_token)} ms"
        )
    kernels = part.kernels / part.steps
    if ms_per_token is None:
        time = f" and {significant(part.total_ns / part.steps / part.devices / 1e6)} ms while traced"
        time += f", the average of its {part.devices} GPUs" if part.devices > 1 else ""
    else:
        time = f", a token {significant(ms_per_token)} ms"
    noun = "kernels and graphs" if part.whole_graphs else "kernel" if round(kernels) == 1 else "kernels"
    return f"{sentence}; a decode step takes {kernels:,.0f} {noun}{time}"


def overlapping(one: Interval | None, other: Interval | None) -> bool:
    """Whether two intervals share a value, so that a difference may be noise; False where one is unknown."""
    return one is not None and other is not None and one[0] <= other[1] and other[0] <= one[1]


def fastest(ms_per_token: Mapping[str, float], intervals: Mapping[str, Interval] | None = None) -> str:
    """What a comparison of scopes found, from the times of a token by scope; the first is the reference.

    intervals: the 95% intervals of those times, as far as they are known: what overlaps is no difference.
    """
    if len(ms_per_token) < 2:
        return "Nothing to compare yet: one scope" if ms_per_token else "No scopes to compare"
    by_time = sorted(ms_per_token, key=lambda scope: ms_per_token[scope])
    first, known = next(iter(ms_per_token)), intervals or {}
    noisy = [scope for scope in by_time if scope != first and overlapping(known.get(scope), known.get(first))]
    best = next(scope for scope in by_time if scope not in noisy)
    reference, least = ms_per_token[first], ms_per_token[best]
    if best == first and noisy:
        other, time = noisy[0], significant(ms_per_token[noisy[0]])
        return (
            f"{other}: {time} ms per token against {significant(reference)} of {first}, a difference within "
            "the noise"
        )
    if best == first:
        return f"{first} is the fastest: {significant(reference)} ms per token"
    return (
        f"{best}: {significant(least)} ms per token, {reference / least:.1f}× faster "
        f"than {first} ({significant(reference)} ms)"
    )
