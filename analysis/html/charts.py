"""Charts as numbers for the template: positions in per cent of a chart's box, which scales to any width."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from analysis.memory.phases import drawn
from analysis.memory.roofline import LATENCY_BOUND_PCT
from analysis.units import duration, significant

if TYPE_CHECKING:
    from analysis.memory import Memory

_LABELLED = 5  # points of the scatter with a name beside them
_LABEL_ROOM = (40.0, 6.0)  # per cent of the chart, across and up, between points with names
_RADIUS_PX = (4.0, 18.0)
_EDGE_PCT = 0.1  # of the scatter's logarithmic axes; points below lie there
_MIN_PCT = 0.07  # where these axes begin, to leave room for points on the edge


@dataclass(frozen=True)
class Axis:
    """A scale from `low` (0 unless it is logarithmic) to `high`; `at` gives per cent of the way."""

    title: str
    low: float
    high: float
    log: bool = False
    unit: str = ""

    def at(self, value: float) -> float:
        low, high = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        value = math.log(max(value, self.low)) if self.log else value
        return round(100 * min(max((value - low) / (high - low), 0.0), 1.0), 2)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Position and label of each tick."""
        if self.log:
            first, last = math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9)
            values = [10.0**power for power in range(first, last + 1)]
        else:
            step = _nice(self.high / 4)
            values = np.arange(0.0, self.high + step * 1e-6, step).tolist()
        return [(self.at(value), f"{value:,.10g}{self.unit}") for value in values]


@dataclass(frozen=True)
class Point:
    x: float
    y: float
    radius: float
    kind: str  # the class of a kernel, which picks its colour
    label: str  # "" for most
    title: str
    anchor: str  # start or end: the side of the point that has room for its label


@dataclass(frozen=True)
class Scatter:
    x: Axis
    y: Axis
    points: Sequence[Point]
    bound: float  # position of the line between latency-bound and bound, the same on both axes
    kinds: Sequence[str]


@dataclass(frozen=True)
class Area:
    """Stacked areas as SVG paths in a box of 100 × 100."""

    x: Axis
    y: Axis
    paths: Sequence[tuple[str, str]]  # name, path
    peak: float | None  # position of the peak on y
    finding: str
    over: str  # "decode step": what the time is that of


def roofline(kernels: Sequence[Mapping[str, Any]]) -> Scatter | None:
    """Kernels by the share of peak that they reach, of memory and of compute: the plane in which
    `analysis.memory.roofline.classify` tells what holds a kernel back. None where no kernel has both."""
    known = [k for k in kernels if _known(k.get("memory_pct")) and _known(k.get("compute_pct"))]
    if not known:
        return None
    x = Axis("compute throughput, % of peak", _MIN_PCT, 100, log=True, unit="%")
    y = Axis("memory throughput, % of peak", _MIN_PCT, 100, log=True, unit="%")
    known.sort(key=lambda kernel: -float(kernel["total_ns"]))  # small ones are drawn last, on top
    longest = float(known[0]["total_ns"])
    points, named = [], list[tuple[float, float]]()
    for number, kernel in enumerate(known):
        across = x.at(max(float(kernel["compute_pct"]), _EDGE_PCT))
        up = y.at(max(float(kernel["memory_pct"]), _EDGE_PCT))
        total_ns, kind = float(kernel["total_ns"]), str(kernel["memory_class"])
        room = all(abs(up - v) > _LABEL_ROOM[1] or abs(across - u) > _LABEL_ROOM[0] for u, v in named)
        if named_here := number < _LABELLED and room:
            named.append((across, up))
        points.append(
            Point(
                across,
                round(100 - up, 2),
                round(max(_RADIUS_PX[1] * math.sqrt(total_ns / longest), _RADIUS_PX[0]), 1),
                kind,
                str(kernel["name"]) if named_here else "",
                f"{kernel['name']}\n{kernel['memory_pct']:.1f}% memory, {kernel['compute_pct']:.1f}% compute"
                f"\n{kind}\n{duration(total_ns)} in {int(kernel['count']):,} launches",
                "end" if across > 50 else "start",
            )
        )
    return Scatter(x, y, points, x.at(LATENCY_BOUND_PCT), sorted({point.kind for point in points}))


def dram(memory: Memory) -> Area | None:
    """DRAM throughput over a typical decode step, or what stands for one; None without a timeline."""
    table = memory.timeline.dropna(subset=["dram_read_gbps", "dram_write_gbps"])
    if len(table) < 2:
        return None
    time, read, write = (
        table[c].to_numpy(dtype=float) for c in ("time_us", "dram_read_gbps", "dram_write_gbps")
    )
    peak = float(memory.peak_gbps) if _known(memory.peak_gbps) and memory.peak_gbps > 0 else None
    total = read + write
    over = drawn(memory.phases)[0]
    x = Axis(f"µs since the first work of the {over}", 0.0, float(time.max()))
    y = Axis("GB/s", 0.0, max(peak or 0.0, float(total.max())) * 1.06)
    mean, most = significant(float(total.mean())), significant(float(total.max()))
    share = f", {float(total.mean()) / peak:.0%} of the peak of {significant(peak)} GB/s" if peak else ""
    return Area(
        x,
        y,
        [
            ("write", _band(x, y, time, read, total)),
            ("read", _band(x, y, time, np.zeros_like(read), read)),
        ],
        100 - y.at(peak) if peak else None,
        f"On average {mean} GB/s over the {over}{share}; at most {most} GB/s.",
        over,
    )


def _band(x: Axis, y: Axis, time: np.ndarray, low: np.ndarray, high: np.ndarray) -> str:
    """The closed path between two curves."""
    there = [f"{x.at(t)},{100 - y.at(v):.2f}" for t, v in zip(time, high, strict=True)]
    back = [f"{x.at(t)},{100 - y.at(v):.2f}" for t, v in zip(time[::-1], low[::-1], strict=True)]
    return f"M{' L'.join(there + back)}Z"


def _known(value: Any) -> bool:
    return value is not None and not pd.isna(value)


def _nice(step: float) -> float:
    """The next of 1, 2 and 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(max(step, 1e-12)))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= step * 0.999)
