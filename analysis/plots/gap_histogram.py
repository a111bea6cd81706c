"""gaps.png: how long the gaps are, and which lengths cost the time."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, PercentFormatter

from analysis.accounting import Account
from analysis.gaps import CAUSES
from analysis.headline import focus, headline
from analysis.plots.style import CAUSE_COLOUR, CAUSE_LABEL, INK, Stamp, duration, empty, framed, styled

Floats = npt.NDArray[np.float64]

_BINS_PER_DECADE = 8


@styled()
def gaps(acc: Account, stamp: Stamp) -> Figure:
    """Number of gaps (above) and share of the idle time (below) per gap length, stacked by cause."""
    part = focus(acc)
    if part.gaps.empty:
        figure = framed(headline(acc), "Gaps between pieces of work on the GPU", stamp)
        empty(figure.add_subplot(), "no gaps in this trace")
        return figure
    lengths = np.sort(part.gaps["dur_ns"].to_numpy(dtype=float))
    idle = lengths.sum()
    half = lengths[np.searchsorted(np.cumsum(lengths), idle / 2)]
    subtitle = (
        f"{len(lengths):,} gaps in {part.name}: median {duration(np.median(lengths))}, "
        f"90th percentile {duration(np.quantile(lengths, 0.9))}; {duration(idle, 3)} idle in all, "
        f"half of it in gaps shorter than {duration(half)}"
    )
    figure = framed(headline(acc), subtitle, stamp)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[1, 1.25])
    edges = _edges(lengths)
    _stack(above, part.gaps, edges, np.ones(len(part.gaps)))
    _stack(below, part.gaps, edges, part.gaps["dur_ns"].to_numpy() / idle)
    _cumulative(below, lengths)
    for axes in (above, below):
        _mark(axes, float(np.median(lengths)))
    above.annotate(
        f"median {duration(np.median(lengths))}", (float(np.median(lengths)), 1),
        xycoords=("data", "axes fraction"), xytext=(0, 3), textcoords="offset points", ha="center", color=INK,
    )  # fmt: skip
    above.set_ylabel("number of gaps")
    above.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    below.set_ylabel("share of idle time (bars)")
    below.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    below.set_xlabel("length of the gap (log scale)")
    below.set_xscale("log")
    below.set_xlim(edges[0], edges[-1])
    below.xaxis.set_major_locator(LogLocator(subs=(1, 3) if edges[-1] / edges[0] < 2e4 else (1,)))
    below.xaxis.set_major_formatter(FuncFormatter(lambda value, _: duration(value, 1)))
    below.xaxis.set_minor_formatter(NullFormatter())
    above.legend(loc="best", title="cause of the gap, share of idle time", alignment="left")
    return figure


def _edges(lengths: Floats) -> Floats:
    """Logarithmic bins that end at half decades."""
    low = np.floor(np.log10(max(lengths[0], 10)) * 2) / 2
    high = np.ceil(np.log10(lengths[-1] * 1.01) * 2) / 2
    high = max(high, low + 1.5)
    return np.logspace(low, high, round((high - low) * _BINS_PER_DECADE) + 1)


def _stack(axes: Axes, gaps: pd.DataFrame, edges: Floats, weights: Floats) -> None:
    bottom = np.zeros(len(edges) - 1)
    length = gaps["dur_ns"].to_numpy(dtype=float)
    for cause in CAUSES:
        of_cause = (gaps["cause"] == cause).to_numpy(dtype=bool)
        if not of_cause.any():
            continue
        share = length[of_cause].sum() / length.sum()
        height, _ = np.histogram(length[of_cause].clip(edges[0]), bins=edges, weights=weights[of_cause])
        axes.bar(
            edges[:-1], height, np.diff(edges), bottom=bottom, align="edge", color=CAUSE_COLOUR[cause],
            edgecolor="white", linewidth=0.6, label=f"{CAUSE_LABEL[cause]}: {_percent(share)}",
        )  # fmt: skip
        bottom += height
    axes.set_ylim(0, bottom.max() * 1.08)


def _cumulative(axes: Axes, lengths: Floats) -> None:
    right = axes.twinx()
    right.step(lengths, np.cumsum(lengths) / lengths.sum(), where="post", color=INK, linewidth=1.4)
    right.set_ylim(0, 1.08)
    right.set_ylabel("cumulative (line)")
    right.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    right.grid(False)
    right.spines["right"].set_visible(True)


def _mark(axes: Axes, length: float) -> None:
    axes.axvline(length, color=INK, linewidth=1, linestyle=(0, (4, 3)))


def _percent(share: float) -> str:
    """A share that never rounds to all or nothing when it is neither."""
    if share < 0.0005:
        return "<0.1%"
    return ">99.9%" if 0.9995 <= share < 1 else f"{share:.1%}"
