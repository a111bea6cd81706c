"""roofline.png: what holds each kernel back, in the plane of memory and compute throughput."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullFormatter

from analysis.memory import Memory
from analysis.memory.roofline import CLASSES, LATENCY_BOUND_PCT
from analysis.plots.labels import numbered
from analysis.plots.style import DEVICE, FAINT, INK, MUTED, Stamp, empty, framed, styled
from analysis.units import duration

CLASS_COLOUR = {
    "memory-bound": "#0072B2",
    "compute-bound": "#009E73",
    "balanced": "#CC79A7",
    "latency-bound": "#D55E00",
    "unknown": FAINT,
}
_LISTED = 12  # kernels with a number and a row in the table
_FLOOR_PCT = 0.3  # where the logarithmic axes begin; less is drawn there
_LARGEST_PT2 = 900.0
_NAME_LENGTH = 44
_LABEL_PT = 8
_DECADE_PT = (135.0, 120.0)  # about the length of a decade on the axes


@styled()
def roofline(measured: Memory, stamp: Stamp) -> Figure:
    """Kernels as points (area: time), with Nsight Compute's thresholds, and a table of the most expensive."""
    known = measured.kernels[measured.kernels["memory_class"] != "unknown"]
    if known.empty:
        figure = framed("Nothing is known about memory traffic in this trace", "", stamp)
        empty(figure.add_subplot(), measured.note or "too few samples for every kernel")
        return figure
    figure = framed(_finding(measured, known), _shown(measured, known), stamp, (12.5, 6.8))
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.12])
    listed = known.nlargest(_LISTED, "total_ns")
    _plane(left, known, listed)
    _table(right, measured, listed)
    return figure


def _finding(measured: Memory, known: pd.DataFrame) -> str:
    """Shares are of all kernel time, what has no class included."""
    whole = measured.kernels["total_ns"].sum()
    time = known.groupby("memory_class", observed=True)["total_ns"].sum()
    share, unknown = time.max() / whole, 1 - known["total_ns"].sum() / whole
    used = (known["dram_share"] * known["total_ns"]).sum() / known["total_ns"].sum()
    part = "Nearly all" if share > 0.995 else f"{share:.0%} of the"
    rest, these = (f" ({unknown:.0%} has no class)", "these kernels") if unknown > 0.005 else ("", "kernels")
    return (
        f"{part} kernel time is {time.idxmax()}{rest}: while {these} run, DRAM is at {used:.0%} of its peak"
    )


def _shown(measured: Memory, known: pd.DataFrame) -> str:
    part = known["total_ns"].sum() / measured.kernels["total_ns"].sum()
    beyond = known["stall_ns"].sum() / known["total_ns"].sum()
    lost = f"{beyond:.0%} of it is beyond what their bytes would take at peak speed. " if beyond > 0 else ""
    how = " and ".join(
        word for source, word in (("metrics", "sampled GPU metrics"), ("ncu", "Nsight Compute"))
        if (known["source"] == source).any()
    )  # fmt: skip
    return (
        f"A point is a kernel with one launch shape, its area the total time: {len(known)} kernels, "
        f"{part:.0%} of the kernel time, by {how}. {lost}"
        f"Below {LATENCY_BOUND_PCT:.0f}% of both peaks (lines) a kernel mostly waits"
    )


def _plane(axes: Axes, known: pd.DataFrame, listed: pd.DataFrame) -> None:
    x = known["compute_pct"].clip(lower=_FLOOR_PCT)
    y = known["memory_pct"].clip(lower=_FLOOR_PCT)
    size = _LARGEST_PT2 * known["total_ns"] / known["total_ns"].max()
    colour = [CLASS_COLOUR[str(one)] for one in known["memory_class"]]
    axes.scatter(x, y, size.clip(lower=12), colour, alpha=0.72, edgecolors="white", linewidths=0.8, zorder=3)
    radius = np.sqrt(size.clip(lower=12) / np.pi)
    spots = np.column_stack([np.log10(x) * _DECADE_PT[0], np.log10(y) * _DECADE_PT[1], radius])
    for label in numbered(spots[known.index.get_indexer(listed.index)], _LABEL_PT):
        row = listed.index[label.point]
        axes.annotate(
            label.text, (float(x[row]), float(y[row])), (label.right, label.up), textcoords="offset points",
            ha="center", va="center", fontsize=_LABEL_PT, color=INK, fontweight="bold", zorder=4,
        )  # fmt: skip
    axes.set(xscale="log", yscale="log", xlim=(_FLOOR_PCT * 0.68, 125), ylim=(_FLOOR_PCT * 0.68, 125))
    axes.plot(
        [_FLOOR_PCT / 2, LATENCY_BOUND_PCT, LATENCY_BOUND_PCT], [LATENCY_BOUND_PCT] * 2 + [_FLOOR_PCT / 2],
        color=INK, linewidth=1, linestyle=(0, (4, 3)),
    )  # fmt: skip
    axes.plot([_FLOOR_PCT / 2, 100, 100], [100, 100, _FLOOR_PCT / 2], color=MUTED, linewidth=1.2)
    axes.text(_FLOOR_PCT, 103, "peak", fontsize=8.5, color=MUTED, va="bottom")
    axes.set_xlabel("busiest of issue slots and tensor pipes, % of peak (log scale)")
    axes.set_ylabel("memory throughput, % of peak (log scale)")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}%"))
        axis.set_minor_formatter(NullFormatter())
        axis.set_ticks([0.3, 1, 3, 10, 30, 100])
    handles = [
        Line2D([], [], marker="o", linestyle="", color=CLASS_COLOUR[one], label=one)
        for one in CLASSES
        if (known["memory_class"] == one).any()
    ]
    axes.legend(
        handles=handles, loc="lower left", bbox_to_anchor=(0, 1), ncols=4, fontsize=9, columnspacing=1
    )


def _table(axes: Axes, measured: Memory, listed: pd.DataFrame) -> None:
    axes.set_axis_off()
    axes.set(xlim=(0, 1), ylim=(_LISTED + 0.7, -0.8))
    right: dict[str, Any] = {"ha": "right", "va": "center", "fontsize": 8.5}
    columns = {0.62: "time", 0.72: "each", 0.94: "DRAM, GB/s (95%)", 1.0: ""}
    for x, label in columns.items():
        axes.text(x, -0.25, label, color=MUTED, **right)
    whole = measured.kernels["total_ns"].sum()
    for row, (_, kernel) in enumerate(listed.iterrows()):
        y = row + 0.55
        axes.text(0.03, y, str(row + 1), color=CLASS_COLOUR[str(kernel["memory_class"])],
                  **{**right, "fontweight": "bold"})  # fmt: skip
        axes.text(0.05, y - 0.17, _short(str(kernel["name"])), va="center", fontsize=7.8, color=INK)
        axes.text(0.05, y + 0.25, str(kernel["shape"]), va="center", fontsize=7, color=MUTED)
        axes.text(0.62, y, f"{kernel['total_ns'] / whole:.1%}", color=INK, **right)
        axes.text(0.72, y, duration(kernel["total_ns"] / kernel["count"]), color=INK, **right)
        axes.text(0.94, y, _speed(kernel), color=INK, **right)
        if kernel["host_starved"]:
            axes.text(1.0, y, "late", color=DEVICE, **right)
    if listed["host_starved"].any():
        note = "late: the host left the GPU idle before it for longer than it runs"
        axes.text(0.03, _LISTED + 0.5, note, fontsize=8, color=MUTED, va="center")


def _speed(kernel: pd.Series) -> str:
    if not np.isfinite(kernel["dram_gbps"]):
        return f"{kernel['dram_share']:.0%} of peak" if np.isfinite(kernel["dram_share"]) else "?"
    return f"{kernel['dram_gbps']:,.0f} ({kernel['dram_low_gbps']:,.0f}–{kernel['dram_high_gbps']:,.0f})"


def _short(name: str) -> str:
    return name if len(name) <= _NAME_LENGTH else name[: _NAME_LENGTH - 1] + "…"
