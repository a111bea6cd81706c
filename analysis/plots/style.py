"""What all figures share: palette, frame (finding, what is shown, stamp), units, files."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from analysis.trace import TraceInfo

# Okabe and Ito's palette: told apart with any colour vision, and in grey by lightness.
CAUSE_COLOUR = {
    "launch": "#D55E00",
    "queued": "#0072B2",
    "graph": "#009E73",
    "edge": "#999999",
    "unknown": "#CC79A7",
}
CAUSE_LABEL = {
    "launch": "host had not launched yet",
    "queued": "launched in time, device waited",
    "graph": "between nodes of a CUDA graph",
    "edge": "window edge",
    "unknown": "unknown",
}
HOST = "#E69F00"
DEVICE = "#1F3A5F"
COPY = "#56B4E9"
MUTED = "#6B7280"
FAINT = "#D1D5DB"
INK = "#111827"

_RC: dict[Any, Any] = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E5E7EB",
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
}
_DPI = 150
_TITLE_PT, _SUBTITLE_PT, _FOOTER_PT = 15, 10.5, 8.5


@contextmanager
def styled() -> Iterator[None]:
    """The look of all figures, for the length of a `with` block or of a decorated function."""
    with rc_context(_RC):
        yield


@dataclass(frozen=True)
class Stamp:
    """Where the numbers of a figure come from: its footer. Empty parts are left out."""

    machine: str
    commit: str
    date: str
    profiled: bool
    recorded: str | None = None  # "recorded on NVIDIA H200, 2026-11-22, 1a2b3c4", if not measured here

    @classmethod
    def of_trace(cls, info: TraceInfo) -> Stamp:
        """A stamp from what the trace itself says."""
        machine = ", ".join(sorted({gpu.name for gpu in info.gpus})) or info.host
        nsys = f"nsys {info.product_version}" if info.product_version else ""
        return cls(" · ".join(filter(None, [machine, nsys])), "", info.recorded_utc[:10], profiled=True)

    def __str__(self) -> str:
        commit = f"commit {self.commit}" if self.commit else ""
        how = "measured under a profiler" if self.profiled else "measured without a profiler"
        here = " · ".join(filter(None, [self.machine, commit, self.date]))
        if not self.recorded:
            return f"{here} · {how}"
        return f"{self.recorded} · {how}" + (f" · analysed on {here}" if here else "")


def framed(title: str, subtitle: str, stamp: Stamp, size: tuple[float, float] = (11, 6.4)) -> Figure:
    """An empty figure with the finding on top, what is shown below it, and the stamp at the bottom.

    Axes added to it are laid out in between, without clipping or overlap.
    """
    width, height = size
    title = textwrap.fill(title, int(width * 7.9))
    subtitle = textwrap.fill(subtitle, int(width * 12.2))
    title_in = 0.27 * (title.count("\n") + 1)
    subtitle_in = 0.2 * (subtitle.count("\n") + 1)
    top_in, bottom_in = 0.18, 0.36
    head = (top_in + title_in + subtitle_in + 0.2) / height
    foot = bottom_in / height
    frame = ConstrainedLayoutEngine(rect=(0.012, foot, 0.976, 1 - head - foot))
    figure = Figure(figsize=size, dpi=_DPI, facecolor="white", layout=frame)
    left = 0.18 / width
    y = 1 - top_in / height
    figure.text(left, y, title, fontsize=_TITLE_PT, fontweight="bold", va="top", color=INK, linespacing=1.15)
    y -= (title_in + 0.06) / height
    figure.text(left, y, subtitle, fontsize=_SUBTITLE_PT, va="top", color=MUTED, linespacing=1.25)
    figure.text(left, 0.13 / height, str(stamp), fontsize=_FOOTER_PT, color=MUTED, va="bottom")
    return figure


def save(figure: Figure, folder: Path, stem: str) -> list[Path]:
    """Write `stem.png` and `stem.svg` into `folder` (made if missing); returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    png, svg = folder / f"{stem}.png", folder / f"{stem}.svg"
    with styled():
        figure.savefig(png)
        figure.savefig(svg)
    return [png, svg]


def duration(ns: float, digits: int = 2) -> str:
    """A time in the unit that suits it, like 320 ns, 25 µs or (with three digits) 13.8 ms."""
    for unit, size in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if ns >= size * 0.9995:
            return f"{significant(ns / size, digits)} {unit}"
    return f"{ns:.0f} ns"


def significant(value: float, digits: int = 3) -> str:
    """A number with this many digits, whole digits kept: 6.91, 746, 12,294, and 0.93 for less than 1."""
    whole = len(str(int(value))) if value >= 1 else 1
    return f"{value:,.{max(digits - whole, 0)}f}"


def empty(axes: Axes, message: str) -> None:
    """Say why there is nothing to draw."""
    axes.set_axis_off()
    axes.text(0.5, 0.5, message, ha="center", va="center", transform=axes.transAxes, color=MUTED, fontsize=12)
