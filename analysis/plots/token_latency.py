"""latency.png: how long each token takes, how steady that is, and what else an iteration consists of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.latency import PHASES, Iteration, latency_metrics, latency_samples, phase_ns, steps_ms
from analysis.plots.style import (
    COPY,
    DEVICE,
    FAINT,
    HOST,
    INK,
    MUTED,
    Stamp,
    empty,
    framed,
    significant,
    styled,
)
from analysis.units import counted

Floats = npt.NDArray[np.float64]

_PHASE_COLOUR = {
    "features": "#CC79A7",
    "encode": HOST,
    "prefill": "#009E73",
    "decode": DEVICE,
    "other": FAINT,
}


@styled()
def latency(iterations: Sequence[Iteration], stamp: Stamp) -> Figure:
    """Decode latency over the position of the token, with its spread; the phases of an iteration below.

    Where the device repeats the steps by itself none of them is timed: the phases take their place.
    """
    steps = steps_ms(iterations)
    if steps.size == 0:
        return _without_steps(iterations, stamp)
    runs = counted(len(iterations), "iteration")
    subtitle = (
        f"Decode steps of {runs}: median at each position, and the range from the 25th to the 75th percentile"
    )
    figure = framed(_finding(iterations), subtitle, stamp, size=(11, 6.8))
    grid = figure.add_gridspec(2, 2, width_ratios=[5, 1], height_ratios=[5, 1])
    main = figure.add_subplot(grid[0, 0])
    side = figure.add_subplot(grid[0, 1], sharey=main)
    _positions(main, steps)
    _distribution(side, steps)
    _phase_bar(figure.add_subplot(grid[1, :]), iterations)
    return figure


def _without_steps(iterations: Sequence[Iteration], stamp: Stamp) -> Figure:
    """Each phase over the iterations, with its spread, and what an iteration consists of."""
    samples = latency_samples(iterations)
    shown = [name for name in ("ms_per_token", *(f"{phase}_ms" for phase in PHASES)) if name in samples]
    if not shown:
        figure = framed("No decode steps were timed", "Latency per token", stamp)
        empty(figure.add_subplot(), "neither decode steps nor phases in these iterations")
        return figure
    runs = counted(len(iterations), "iteration")
    subtitle = (
        f"Phases of {runs}, each on its own scale (ms; line: median, band: quartiles). Decode steps were not "
        "timed singly"
    )
    figure = framed(_finding(iterations), subtitle, stamp, size=(11, 6.4))
    grid = figure.add_gridspec(2, len(shown), height_ratios=[5, 1])
    for column, name in enumerate(shown):
        _over_iterations(figure.add_subplot(grid[0, column]), name, samples[name])
    _phase_bar(figure.add_subplot(grid[1, :]), iterations)
    return figure


def _over_iterations(axes: Axes, name: str, values: Sequence[float]) -> None:
    """One panel, on a scale of its own: how steady a phase is, not how long beside the others."""
    phase = name.removesuffix("_ms")
    p25, median, p75 = np.percentile(values, [25, 50, 75]).tolist()
    colour = _PHASE_COLOUR.get(phase, DEVICE)
    axes.axhspan(p25, p75, color=colour, alpha=0.22, linewidth=0)
    axes.axhline(median, color=colour, linewidth=1.6)
    axes.plot(np.arange(1, len(values) + 1), values, ".", color=INK, markersize=5)
    low, high = min(values), max(values)
    margin = max(0.35 * (high - low), 0.02 * high)
    axes.set_ylim(max(low - margin, 0.0), high + margin)
    axes.set_xlim(0.5, len(values) + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6))
    title = "per token" if name == "ms_per_token" else phase
    axes.set_title(f"{title}\n{significant(median)} ms", loc="left", fontsize=10, fontweight="bold")
    axes.set_xlabel("iteration")


def _finding(iterations: Sequence[Iteration]) -> str:
    found = latency_metrics(iterations)
    sentence = f"An iteration takes {significant(found['total_ms'])} ms"
    if "ms_per_token" in found:
        tokens = "1 token" if found["tokens"] == 1 else f"{found['tokens']:.0f} tokens"
        sentence = (
            f"One token takes {significant(found['ms_per_token'])} ms, "
            f"an iteration of {tokens} {significant(found['total_ms'])} ms"
        )
    shares = {name: found.get(f"{name}_ms", 0.0) / found["total_ms"] for name in PHASES}
    longest = max(shares, key=lambda name: shares[name])
    return f"{sentence}: {shares[longest]:.0%} of it in {longest}"


def _positions(axes: Axes, steps: Floats) -> None:
    position = np.arange(1, steps.shape[1] + 1)
    p25, median, p75 = np.nanpercentile(steps, [25, 50, 75], axis=0)
    for one in steps:
        axes.plot(position, one, ".", color="#9CA3AF", markersize=3.5, zorder=1)
    axes.fill_between(position, p25, p75, color=COPY, alpha=0.45, linewidth=0, label="25th–75th percentile")
    axes.plot(
        position, median, ".-", color=DEVICE, linewidth=1.6, markersize=4, label="median over iterations"
    )
    axes.plot([], [], ".", color="#9CA3AF", label="one step of one iteration")
    low, high = _limits(steps)
    axes.set_ylim(low, high)
    axes.set_xlim(0.5, len(position) + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("position of the token in the iteration")
    axes.set_ylabel("duration of the decode step (ms)")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0.2)
    slower = int(np.count_nonzero(steps > high))
    if slower:
        axes.annotate(
            f"▲ {slower} slower, up to {significant(float(np.nanmax(steps)))} ms", (1, 1), color=MUTED,
            ha="right", va="top", xycoords="axes fraction", xytext=(-6, -4), textcoords="offset points",
        )  # fmt: skip


def _limits(steps: Floats) -> tuple[float, float]:
    """All but the slowest 1% of steps, so that one hiccup doesn't flatten the rest."""
    low, high = np.nanpercentile(steps, [0, 99])
    margin = max(0.35 * (high - low), 0.02 * high)
    return max(float(low - margin), 0.0), float(high + margin)


def _distribution(axes: Axes, steps: Floats) -> None:
    values = steps[np.isfinite(steps)]
    axes.hist(values, bins=np.linspace(*axes.get_ylim(), 41).tolist(), orientation="horizontal", color=DEVICE)
    median, p99 = np.percentile(values, [50, 99]).tolist()
    axes.axhline(median, color=HOST, linewidth=1.6)
    axes.axhline(p99, color=HOST, linewidth=1.6, linestyle=(0, (4, 3)))
    summary = f"— median {significant(median)} ms\n- - p99 {significant(p99)} ms"
    axes.set_title(summary, loc="left", fontsize=9, color=INK)
    axes.set_xlabel("number of steps")
    axes.tick_params(labelleft=False)


def _phase_bar(axes: Axes, iterations: Sequence[Iteration]) -> None:
    """The medians of an iteration's phases, end to end; `other` is the rest of the median total."""
    medians = {name: float(np.median([phase_ns(one, name) for one in iterations])) / 1e6 for name in PHASES}
    total = float(np.median([one["iter_ns"] for one in iterations])) / 1e6
    medians["other"] = max(total - sum(medians.values()), 0.0)
    left = 0.0
    for name, width in medians.items():
        if width > 0:
            label = f"{name} {significant(width)} ms"
            axes.barh(0, width, left=left, color=_PHASE_COLOUR[name], edgecolor="white", label=label)
            left += width
    axes.set_yticks([])
    axes.set_ylim(-0.5, 0.5)
    axes.set_xlim(0, left)
    axes.grid(False)
    axes.set_xlabel("phases of one iteration, end to end (ms, medians)")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=5, borderaxespad=0.2, handlelength=1.2)
