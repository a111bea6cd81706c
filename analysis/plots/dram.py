"""dram.png: how much of the memory's speed a typical decode step uses, and when."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.memory import Memory
from analysis.memory.phases import drawn
from analysis.plots.style import COPY, DEVICE, INK, MUTED, Stamp, empty, framed, styled
from analysis.units import duration, percent, significant

_VISIBLE = 0.2  # traffic that reaches this part of the peak can be drawn on one scale with it


@styled()
def dram(measured: Memory, stamp: Stamp) -> Figure:
    """DRAM reads and writes over a typical step with the peak, and below it when the GPU was busy."""
    step = measured.timeline
    if step.empty or not np.isfinite(measured.peak_gbps):
        figure = framed("Nothing is known about DRAM traffic in this trace", "", stamp)
        empty(figure.add_subplot(), measured.note or "no step with samples")
        return figure
    figure = framed(_finding(measured), _shown(measured), stamp, (11, 6))
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[1, 0.09])
    _traffic(above, measured)
    _busy(below, step)
    return figure


def _finding(measured: Memory) -> str:
    called, row = drawn(measured.phases)
    if row is None:
        moved = float(_total(measured.timeline).mean())
        return (
            f"A {called} moves {significant(moved)} GB/s: {percent(moved / measured.peak_gbps)} of the peak"
        )
    moved = float(row["bytes_per_range"])
    size = f"{significant(moved / 1e6)} MB" if moved < 1e10 else f"{significant(moved / 1e9)} GB"
    return (
        f"A {called} uses {percent(row['dram_share'])} of the memory's speed while sampled: "
        f"its {size} would take {duration(moved / measured.peak_gbps)} at the peak"
    )


def _shown(measured: Memory) -> str:
    step, called = measured.timeline, drawn(measured.phases)[0]
    # Of a loop on the device gaps.png tells nothing: the trace has it as one piece.
    elsewhere = "" if called == "decode phase" else ": how busy the GPU is without it, gaps.png tells"
    length_ns, samples = _length_us(step) * 1e3, float(step["samples"].sum())
    folded = round(samples * measured.period_ns / length_ns)
    many = f", the mean of {folded:,} laid onto one another" if folded > 1 else ""
    mean, highest = (significant(float(found)) for found in (_total(step).mean(), _total(step).max()))
    return (
        f"DRAM traffic over a {called} of {duration(length_ns, 3)}{many} ({step['samples'].median():.0f} "
        f"samples of {duration(measured.period_ns)} a bin; faster changes are smoothed). Mean {mean} GB/s, "
        f"highest {highest} of {significant(measured.peak_gbps, 4)} GB/s. Sampling changes the "
        f"gaps{elsewhere}"
    )


def _traffic(axes: Axes, measured: Memory) -> None:
    step = measured.timeline
    edges = np.linspace(0, _length_us(step), len(step) + 1)
    read, total = step["dram_read_gbps"].to_numpy(), _total(step).to_numpy()
    axes.stairs(read, edges, fill=True, color=DEVICE, label="read")
    axes.stairs(total, edges, baseline=read, fill=True, color=COPY, label="written")
    peak, highest = measured.peak_gbps, float(np.nanmax(total))
    if highest > _VISIBLE * peak:
        axes.axhline(peak, color=INK, linewidth=1.2, linestyle=(0, (4, 3)))
        note, top = f"the device's peak, {significant(peak, 4)} GB/s", 1.06 * peak
        at: tuple[float, float] = (1, peak / top)
    else:
        note, top = (
            f"the device's peak, {significant(peak, 4)} GB/s, is {peak / highest:.0f}× higher ↑",
            1.25 * highest,
        )
        at = (1, 1)
    axes.annotate(
        note, at, (0, -4), xycoords="axes fraction", textcoords="offset points", ha="right", va="top"
    )
    axes.set_ylim(0, top)
    axes.set_xlim(0, edges[-1])
    axes.set_ylabel("DRAM traffic (GB/s)")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.legend(loc="upper left", bbox_to_anchor=(0, 0.94), ncols=2)


def _busy(axes: Axes, step: pd.DataFrame) -> None:
    share = step["busy_share"].to_numpy()[None, :]
    axes.imshow(
        share, aspect="auto", extent=(0, _length_us(step), 0, 1), cmap="Greys", vmin=0, vmax=1.25,
        interpolation="nearest",
    )  # fmt: skip
    axes.set_yticks([0.5], [f"GPU busy\n{share.mean():.0%}"])
    axes.tick_params(axis="y", length=0)
    axes.grid(False)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_xlabel("time since the first kernel began (µs); darker: busy more of the time")
    for spine in axes.spines.values():
        spine.set_color(MUTED)


def _total(step: pd.DataFrame) -> pd.Series:
    return step["dram_read_gbps"] + step["dram_write_gbps"]


def _length_us(step: pd.DataFrame) -> float:
    """`time_us` holds the middles of the bins."""
    return float(step["time_us"].iloc[-1] + step["time_us"].iloc[0])
