"""ladder.png: the scopes of a sweep side by side."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter

from analysis.accounting.causes import CAUSES
from analysis.headline import Interval, fastest, overlapping
from analysis.plots.style import (
    CAUSE_COLOUR,
    CAUSE_LABEL,
    COPY,
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
from analysis.statistics import TOO_FEW

_NOTEWORTHY = 0.05  # differences from the first scope below 5% are not called faster or slower
_LEGEND_COLUMNS = 3


@styled()
def ladder(rows: pd.DataFrame, stamp: Stamp) -> Figure:
    """One row per scope, in the given order; the first is what the others are compared with.

    Columns: scope, ms_per_token, p25, p75 (ms per token), idle_share (of the decode phase),
    kernels_per_token, encode_ms; low and high (the 95% interval of ms_per_token), without which no difference
    is taken for noise; and, if the idle share is to be drawn by cause, host_share … unknown_share (of the
    decode phase too). What a run didn't capture is NaN, and shown as such, never as zero.
    """
    subtitle = (
        "Latency without a profiler (median, 25th–75th percentile); idle time and kernels from the trace"
    )
    whole = rows["kernels_per_token"].isna() & rows["idle_share"].notna()  # graphs were traced as one piece
    if whole.any():
        subtitle += ". Whole graph: traced as one piece, gaps inside count as busy"
    if "low" in rows and (rows["ms_per_token"].notna() & rows["low"].isna()).any():
        subtitle += f". {TOO_FEW.capitalize()}"
    causes = [cause for cause in CAUSES if rows.get(f"{cause}_share", pd.Series(dtype=float)).gt(0).any()]
    bars_in, legend_in = 1.3 + 0.52 * max(len(rows), 2), 0.3 + 0.2 * -(-len(causes) // _LEGEND_COLUMNS)
    height = 1.3 + bars_in + (legend_in if causes else 0)
    figure = framed(_finding(rows), subtitle, replace(stamp, profiled=None), size=(11, height))
    if rows.empty:
        empty(figure.add_subplot(), "no finished runs")
        return figure
    numbers = rows.drop(columns="scope").astype(float).reset_index(drop=True)
    heights = [bars_in, legend_in] if causes else [bars_in]
    grid = figure.add_gridspec(len(heights), 1, height_ratios=heights)
    row = grid[0].subgridspec(1, 4, width_ratios=[2, 1.2, 1.2, 1.2])
    latency, idle, kernels, encode = row.subplots(sharey=True, squeeze=False)[0]
    per_token = numbers["ms_per_token"]
    spread = (per_token - numbers["p25"]).clip(lower=0), (numbers["p75"] - per_token).clip(lower=0)
    _bars(latency, per_token, _compared(rows), COPY, "ms per token", reach=numbers["p75"])
    latency.errorbar(per_token, range(len(rows)), xerr=np.array(spread), fmt="none", ecolor=INK, capsize=3)
    _bars(
        idle,
        numbers["idle_share"],
        [
            f"{share:.0%}{' (whole graph)' if one_piece else ''}"
            for share, one_piece in zip(numbers["idle_share"], whole, strict=True)
        ],
        CAUSE_COLOUR["host"],
        "GPU idle in decode",
    )
    if causes:
        _split(idle, numbers, causes)
        _legend(figure.add_subplot(grid[1]), causes)
    _bars(
        kernels, numbers["kernels_per_token"], _plain(numbers["kernels_per_token"]), HOST, "kernels per token"
    )
    _bars(encode, numbers["encode_ms"], _plain(numbers["encode_ms"]), MUTED, "encoder, in all (ms)")
    latency.set_xlim(0, _top(numbers[["ms_per_token", "p75"]].max(axis=1)) * 1.8)
    idle.set_xlim(0, 1.35)
    idle.set_xticks([0, 0.5, 1])
    idle.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    latency.set_yticks(range(len(rows)), rows["scope"].tolist())
    latency.set_ylim(len(rows) - 0.4, -0.6)
    return figure


def _bars(
    axes: Axes, values: pd.Series, labels: list[str], colour: str, title: str, reach: pd.Series | None = None
) -> None:
    """Horizontal bars with their values written behind them, or behind `reach` where that is further."""
    ends = values if reach is None else np.fmax(values, reach)
    for y, (value, end, label) in enumerate(zip(values.tolist(), ends.tolist(), labels, strict=True)):
        missing = np.isnan(value)
        axes.barh(y, 0 if missing else value, height=0.62, color=colour)
        axes.annotate(
            "not captured" if missing else label, (0 if missing else end, y), xytext=(7, 0),
            textcoords="offset points", va="center", color=MUTED if missing else INK,
        )  # fmt: skip
    axes.set_title(title, loc="left", fontsize=10.5, fontweight="bold")
    axes.set_xlim(0, _top(values) * 1.4)
    axes.locator_params(axis="x", nbins=4)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)


def _split(axes: Axes, numbers: pd.DataFrame, causes: list[str]) -> None:
    """The bars of the idle share again, cut into causes; a bar without known causes stays grey."""
    known = numbers[[f"{cause}_share" for cause in causes]].notna().all(axis=1)
    for bar, has_causes in zip(axes.patches, known, strict=True):
        bar.set_facecolor(FAINT if not has_causes else "none")
    left = np.zeros(len(numbers))
    for cause in causes:
        width = numbers[f"{cause}_share"].fillna(0).to_numpy()
        axes.barh(range(len(numbers)), width, left=left, height=0.62, color=CAUSE_COLOUR[cause])
        left += width


def _legend(axes: Axes, causes: list[str]) -> None:
    axes.set_axis_off()
    axes.legend(
        handles=[Patch(color=CAUSE_COLOUR[cause], label=CAUSE_LABEL[cause]) for cause in causes],
        loc="upper right", ncols=_LEGEND_COLUMNS, fontsize=8.5, title="GPU idle in decode, by cause",
        title_fontsize=8.5, alignment="left", borderaxespad=0,
    )  # fmt: skip


def _compared(rows: pd.DataFrame) -> list[str]:
    values, intervals = rows["ms_per_token"].astype(float), _intervals(rows)
    first = values.iloc[0]
    labels = []
    for scope, value in zip(rows["scope"].tolist(), values.tolist(), strict=True):
        ratio = first / value
        label = significant(value) if not np.isnan(value) else ""
        noise = overlapping(intervals.get(scope), intervals.get(rows["scope"].iloc[0]))
        if noise and not 1 / (1 + _NOTEWORTHY) <= ratio <= 1 + _NOTEWORTHY:
            label += "  (within noise)"
        elif ratio > 1 + _NOTEWORTHY:
            label += f"  ({ratio:.1f}× faster)"
        elif ratio < 1 / (1 + _NOTEWORTHY):
            label += f"  ({1 / ratio:.1f}× slower)"
        labels.append(label)
    return labels


def _plain(values: pd.Series) -> list[str]:
    return ["" if np.isnan(value) else significant(value) for value in values.tolist()]


def _top(values: pd.Series) -> float:
    top = float(values.max())
    return top if top > 0 else 1.0


def _finding(rows: pd.DataFrame) -> str:
    timed = rows.dropna(subset="ms_per_token")
    times = dict(zip(timed["scope"].tolist(), timed["ms_per_token"].astype(float), strict=True))
    return fastest(times, _intervals(rows))


def _intervals(rows: pd.DataFrame) -> dict[str, Interval]:
    """The 95% intervals by scope, of those that have one."""
    if "low" not in rows or "high" not in rows:
        return {}
    known = rows.dropna(subset=["low", "high"])
    limits = zip(known["low"].astype(float), known["high"].astype(float), strict=True)
    return dict(zip(known["scope"].tolist(), limits, strict=True))
