"""timeline.png: one typical decode step, host calls above, the device's work below, gaps in between."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from analysis.accounting.account import Account
from analysis.accounting.causes import CAUSES
from analysis.plots.style import (
    CAUSE_COLOUR,
    CAUSE_LABEL,
    COPY,
    DEVICE,
    FAINT,
    HOST,
    INK,
    MUTED,
    Stamp,
    duration,
    empty,
    framed,
    styled,
)
from analysis.reading.trace import Trace
from analysis.steps import View, close_up, typical_step
from analysis.units import percent

_STREAMS = 4  # rows of streams, the busiest
_BAR = 0.62  # height of a bar; rows are 1 apart
_HAIR = 0.35  # points: what is too short to see still leaves a trace
_GAP_ALPHA = 0.5
_NAME_LENGTH = 22
_LETTERS_LEFT, _LETTERS_ACROSS = (
    14,
    160,
)  # slanted letters that there is room for left of the axes, and in them


@styled()
def timeline(trace: Trace, acc: Account, stamp: Stamp) -> Figure:
    """The step of median duration: whole, and (if it has many kernels) a close-up with their names."""
    view = typical_step(trace, acc)
    if view is None:
        figure = framed("No GPU work to draw", "One step on host and device", stamp)
        empty(figure.add_subplot(), "no GPU work in this trace")
        return figure
    devices = view.work["device"].nunique()
    view = _of_the_busiest(view)
    zoom = close_up(view)
    figure = framed(_finding(view, devices), _subtitle(view, devices), stamp, size=(12, 7.4 if zoom else 5.4))
    if zoom is None:
        detail = figure.add_subplot()
        _legend(detail, view)
    else:
        whole, detail = figure.subplots(2, 1, height_ratios=[1, 1.5])
        _draw(whole, view)
        _frame(whole, zoom)
        whole.set_title("in full", loc="left", fontsize=10.5, color=INK)
        detail.set_title(
            f"close-up of the framed {duration(zoom.span_ns)}", loc="left", fontsize=10.5, color=INK
        )
        _legend(whole, view)
    rows = _draw(detail, zoom or view)
    _launch_lines(detail, zoom or view, rows)
    _names(detail, zoom or view, len(rows))
    return figure


def _of_the_busiest(view: View) -> View:
    """The view without all devices but the one that worked most for the step: gaps of several would be drawn
    over one another."""
    busiest = view.own.groupby("device")["dur_ns"].sum().idxmax()
    work, gaps = (table[table["device"] == busiest] for table in (view.work, view.gaps))
    return replace(view, work=work, gaps=gaps, parts=view.parts[view.parts["gap"].isin(gaps.index)])


def _finding(view: View, devices: int) -> str:
    kernels, graphs = (int((view.own["kind"] == kind).sum()) for kind in ("kernel", "graph"))
    idle = view.idle_ns / max(view.span_ns, 1)
    work = f"{kernels:,} kernels" + (f" and {graphs:,} CUDA graphs" if graphs else "")
    took = f"{view.name}: {duration(view.span_ns, 3)} for {work}"
    if devices == 1:
        return f"{took}, the GPU is idle {percent(idle)} of it"
    return f"{took} on GPU {view.own['device'].iloc[0]}, which is idle {percent(idle)} of it"


def _subtitle(view: View, devices: int) -> str:
    text = f"The one of median duration among {view.among:,}. " if view.among > 1 else ""
    text += f"Of {devices} GPUs only the busiest is drawn. " if devices > 1 else ""
    text += "Lines join a call with the work that it launched; gaps are shaded by their cause"
    if view.launched_before_ns > 0:
        ahead = duration(view.launched_before_ns)
        text += f". The host is ahead: it had launched all of this {ahead} before it began"
    return text


def _draw(axes: Axes, view: View) -> dict[tuple[int, int], int]:
    """Host row on top, one row per stream below, gaps shaded across the streams.

    Returns the row of each (device, stream).
    """
    streams = view.work.groupby(["device", "stream"])["dur_ns"].sum().nlargest(_STREAMS).sort_index()
    rows = {(int(key[0]), int(key[1])): y for y, key in enumerate(streams.index.tolist())}
    host = len(rows)
    axes.set_ylim(-0.6, host + 0.6)
    axes.set_xlim(view.us(view.start_ns), view.us(view.end_ns))
    for cause, parts in view.parts.groupby("cause", observed=True):
        _bars(axes, view, parts, -0.5, host, CAUSE_COLOUR[str(cause)], alpha=_GAP_ALPHA, linewidth=0)
    for (device, stream), y in rows.items():
        row = view.work[(view.work["device"] == device) & (view.work["stream"] == stream)]
        copies = row["kind"].isin(["memcpy", "memset"])
        _bars(axes, view, row[~copies], y - _BAR / 2, _BAR, DEVICE)
        _bars(axes, view, row[copies], y - _BAR / 2, _BAR, COPY)
    _bars(axes, view, view.calls[~view.calls["launches"]], host - _BAR / 2, _BAR, FAINT)
    _bars(axes, view, view.calls[view.calls["launches"]], host - _BAR / 2, _BAR, HOST)
    labels = [f"GPU {device}\nstream {stream}" if host > 1 else "GPU" for device, stream in rows]
    axes.set_yticks(range(host + 1), [*labels, "host,\nCUDA calls"])
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("time since its start (µs)")
    _gap_labels(axes, view, (host - 1) / 2)
    return rows


def _bars(
    axes: Axes, view: View, table: pd.DataFrame, y: float, height: float, colour: str,
    alpha: float = 1.0, linewidth: float = _HAIR,
) -> None:  # fmt: skip
    start = view.us(table["start_ns"].to_numpy())
    width = (table["end_ns"] - table["start_ns"]).to_numpy() / 1e3
    spans = list(zip(start.tolist(), width.tolist(), strict=True))
    axes.broken_barh(spans, (y, height), color=colour, alpha=alpha, linewidth=linewidth, snap=False)


def _gap_labels(axes: Axes, view: View, y: float) -> None:
    """Durations of the gaps that are wide enough to carry one."""
    start = view.gaps["start_ns"].clip(lower=view.start_ns).to_numpy()
    end = view.gaps["end_ns"].clip(upper=view.end_ns).to_numpy()
    for left, right, whole in zip(start, end, view.gaps["dur_ns"].tolist(), strict=True):
        if right - left > 0.05 * view.span_ns:
            middle = view.us((left + right) / 2)
            axes.text(middle, y, duration(whole), ha="center", va="center", fontsize=9, color=INK)


def _launch_lines(axes: Axes, view: View, rows: dict[tuple[int, int], int]) -> None:
    """From the start of each call in view to the start of the first work that it launched."""
    work = view.own[view.own["call_start_ns"] >= view.start_ns].drop_duplicates(["process", "correlation"])
    call, start = view.us(work["call_start_ns"].to_numpy()), view.us(work["start_ns"].to_numpy())
    lines = []
    for x0, x1, device, stream in zip(call, start, work["device"], work["stream"], strict=True):
        if (device, stream) in rows:
            lines.append([(x0, len(rows) - _BAR / 2), (x1, rows[device, stream] + _BAR / 2)])
    axes.add_collection(LineCollection(lines, colors=MUTED, linewidths=0.8, zorder=1.5))


def _names(axes: Axes, view: View, host: int) -> None:
    """Names of the step's own work, slanted below the bars; left out where they would collide."""
    axes.set_ylim(-1.95, host + 0.6)
    left, right = axes.get_xlim()
    apart = 0.023 * (right - left)
    last = -np.inf
    for start, name in zip(view.us(view.own["start_ns"].to_numpy()), view.own["short"].tolist(), strict=True):
        if start >= left and start - last >= apart:
            room = _LETTERS_LEFT + int(_LETTERS_ACROSS * (start - left) / (right - left))
            text = axes.text(
                start,
                -0.55,
                _label(name, min(room, _NAME_LENGTH)),
                rotation=32,
                rotation_mode="anchor",
                ha="right",
                va="top",
                fontsize=8,
            )
            text.set_in_layout(False)
            last = start


def _label(name: str, letters: int) -> str:
    name = re.sub(r"^(vectorized|unrolled)_|_kernel\b", "", name)
    return name if len(name) <= letters else name[: letters - 1] + "…"


def _frame(axes: Axes, zoom: View) -> None:
    """Where in the whole step the close-up lies."""
    low, high = axes.get_ylim()
    left, right = zoom.us(zoom.start_ns), zoom.us(zoom.end_ns)
    axes.add_patch(
        Rectangle((left, low), right - left, high - low, fill=False, edgecolor=INK, linewidth=1.4, zorder=5)
    )


def _legend(axes: Axes, view: View) -> None:
    kinds, causes = set(view.work["kind"]), set(view.parts["cause"])
    handles = [
        Patch(color=HOST, label="call that launches work"),
        Patch(color=FAINT, label="other CUDA call"),
    ]
    handles.append(Patch(color=DEVICE, label="kernel"))
    if kinds & {"memcpy", "memset"}:
        handles.append(Patch(color=COPY, label="copy, memset"))
    handles += [
        Patch(facecolor=CAUSE_COLOUR[cause], alpha=_GAP_ALPHA, label=f"gap: {CAUSE_LABEL[cause]}")
        for cause in CAUSES
        if cause in causes
    ]
    axes.legend(
        handles=handles, loc="lower right", bbox_to_anchor=(1, 1), ncols=3, fontsize=8.5, borderaxespad=0.2
    )
