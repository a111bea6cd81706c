"""gaps.png: how long the gaps are, which lengths cost the time, and what causes it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, PercentFormatter

from analysis.accounting.account import Account
from analysis.accounting.causes import CAUSES
from analysis.engine.intervals import Ints
from analysis.headline import focus, headline
from analysis.plots.style import (
    CAUSE_COLOUR,
    CAUSE_LABEL,
    INK,
    MUTED,
    Stamp,
    duration,
    empty,
    framed,
    styled,
)

Floats = npt.NDArray[np.float64]

_BINS_PER_DECADE = 8
_GAPS = 500_000  # cut into their causes at once
_CURVE_POINTS = 500


@styled()
def gaps(acc: Account, stamp: Stamp) -> Figure:
    """Number of gaps and share of the idle time per gap length, and the idle time by cause.

    A gap has one length, but its time may have several causes: the time is split among them exactly.
    """
    part = focus(acc)
    if part.gaps.empty:
        figure = framed(headline(acc), "Gaps between pieces of work on the GPU", stamp)
        empty(figure.add_subplot(), "no gaps in this trace")
        return figure
    unsorted = part.gaps["dur_ns"].to_numpy()
    lengths = np.sort(unsorted).astype(float)
    edges = _edges(lengths)
    bin_of_gap = np.searchsorted(edges, unsorted.clip(min=edges[0]), side="right") - 1
    split = _split(acc, part.gaps.index.to_numpy(), bin_of_gap, len(edges) - 1)
    figure = framed(headline(acc), _subtitle(part.name, lengths), stamp, size=(12, 6.6))
    grid = figure.add_gridspec(2, 2, width_ratios=[1.75, 1], height_ratios=[1, 1.4])
    below = figure.add_subplot(grid[1, 0])
    above = figure.add_subplot(grid[0, 0], sharex=below)
    _counts(above, bin_of_gap, edges)
    _shares(below, split, edges)
    _cumulative(below, lengths, edges)
    _lengths_axis(above, below, edges, float(np.median(lengths)))
    _by_cause(figure.add_subplot(grid[:, 1]), split.sum(axis=0))
    return figure


def _subtitle(name: str, lengths: Floats) -> str:
    idle = lengths.sum()
    half = lengths[np.searchsorted(np.cumsum(lengths), idle / 2)]
    return (
        f"{len(lengths):,} gaps in {name}: median {duration(np.median(lengths))}, "
        f"90th percentile {duration(np.quantile(lengths, 0.9))}; {duration(idle, 3)} idle in all, "
        f"half of it in gaps of up to {duration(half)}"
    )


def _split(acc: Account, gaps: Ints, bin_of_gap: Ints, bins: int) -> Ints:
    """Idle ns by length of the gap and by cause: shape [bins, causes]. `gaps`: rising rows of acc.gaps."""
    split = np.zeros((bins, len(CAUSES)))
    for first in range(0, len(gaps), _GAPS):
        rows = gaps[first : first + _GAPS]
        parts = acc.segments(rows)
        its_bin = bin_of_gap[first + np.searchsorted(rows, parts["gap"].to_numpy())]
        code = its_bin * len(CAUSES) + parts["cause"].cat.codes.to_numpy()
        split += np.bincount(code, parts["dur_ns"].to_numpy(), bins * len(CAUSES)).reshape(split.shape)
    return split.astype(np.int64)


def _edges(lengths: Floats) -> Floats:
    """Logarithmic bins that end at half decades."""
    low = np.floor(np.log10(max(lengths[0], 10)) * 2) / 2
    high = np.ceil(np.log10(lengths[-1] * 1.01) * 2) / 2
    high = max(high, low + 1.5)
    return np.logspace(low, high, round((high - low) * _BINS_PER_DECADE) + 1)


def _counts(axes: Axes, bin_of_gap: Ints, edges: Floats) -> None:
    counts = np.bincount(bin_of_gap, minlength=len(edges) - 1)
    axes.bar(edges[:-1], counts, np.diff(edges), align="edge", color=MUTED, edgecolor="white", linewidth=0.6)
    axes.set_ylabel("number of gaps")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def _shares(axes: Axes, split: Ints, edges: Floats) -> None:
    shares = split / split.sum()
    bottom = np.zeros(len(shares))
    for code, cause in enumerate(CAUSES):
        axes.bar(
            edges[:-1], shares[:, code], np.diff(edges), bottom=bottom, align="edge",
            color=CAUSE_COLOUR[cause], edgecolor="white", linewidth=0.6,
        )  # fmt: skip
        bottom += shares[:, code]
    axes.set_ylim(0, bottom.max() * 1.08)
    axes.set_ylabel("share of idle time (bars)")
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))


def _cumulative(axes: Axes, lengths: Floats, edges: Floats) -> None:
    right = axes.twinx()
    curve = np.geomspace(edges[0], edges[-1], _CURVE_POINTS)
    shorter = np.append(0, np.cumsum(lengths))[np.searchsorted(lengths, curve, side="right")]
    right.plot(curve, shorter / lengths.sum(), color=INK, linewidth=1.4)
    right.set_ylim(0, 1.08)
    right.set_ylabel("cumulative (line)")
    right.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    right.grid(False)
    right.spines["right"].set_visible(True)


def _lengths_axis(above: Axes, below: Axes, edges: Floats, median: float) -> None:
    for axes in (above, below):
        axes.axvline(median, color=INK, linewidth=1, linestyle=(0, (4, 3)))
    above.annotate(
        f"median {duration(median)}", (median, 1), xycoords=("data", "axes fraction"), xytext=(0, 3),
        textcoords="offset points", ha="center", color=INK,
    )  # fmt: skip
    above.tick_params(labelbottom=False)
    below.set_xlabel("length of the gap (log scale)")
    below.set_xscale("log")
    below.set_xlim(edges[0], edges[-1])
    below.xaxis.set_major_locator(LogLocator(subs=(1, 3) if edges[-1] / edges[0] < 2e4 else (1,)))
    below.xaxis.set_major_formatter(FuncFormatter(lambda value, _: duration(value, 1)))
    below.xaxis.set_minor_formatter(NullFormatter())


def _by_cause(axes: Axes, idle_ns: Ints) -> None:
    """A bar per cause that occurs, which is the legend of the other panels as well."""
    occurring = [(cause, ns) for cause, ns in zip(CAUSES, idle_ns.tolist(), strict=True) if ns]
    for y, (cause, ns) in enumerate(occurring):
        share, colour = ns / idle_ns.sum(), CAUSE_COLOUR[cause]
        axes.barh(y, share, height=0.42, color=colour)
        for text, left, ink in (("■", 0, colour), (CAUSE_LABEL[cause], 12, INK)):
            axes.annotate(
                text, (0, y - 0.26), xytext=(left, 2), textcoords="offset points", color=ink, fontsize=9.5
            )
        axes.annotate(
            f"{_percent(share)}, {duration(ns, 3)}", (share, y), xytext=(5, 0), textcoords="offset points",
            va="center", color=MUTED, fontsize=9.5,
        )  # fmt: skip
    axes.set_title("idle time by cause", loc="left", fontsize=10.5, fontweight="bold")
    axes.set_ylim(max(len(occurring), 4) - 0.5, -0.75)
    axes.set_xlim(0, 1.3 * idle_ns.max() / idle_ns.sum())
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def _percent(share: float) -> str:
    """A share that never rounds to all or nothing when it is neither."""
    if share < 0.0005:
        return "<0.1%"
    return ">99.9%" if 0.9995 <= share < 1 else f"{share:.1%}"
