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

from analysis.palette import CAUSE_COLOUR as CAUSE_COLOUR
from analysis.palette import CAUSE_LABEL as CAUSE_LABEL
from analysis.palette import COPY as COPY
from analysis.palette import DEVICE as DEVICE
from analysis.palette import FAINT as FAINT
from analysis.palette import HOST as HOST
from analysis.palette import INK as INK
from analysis.palette import MUTED as MUTED
from analysis.reading.trace import TraceInfo
from analysis.units import duration as duration
from analysis.units import significant as significant

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
    profiled: bool | None  # None: some of the numbers are, and the figure says which
    recorded: str | None = None  # "recorded on NVIDIA H200, 2026-11-22, 1a2b3c4", if not measured here

    @classmethod
    def of_trace(cls, info: TraceInfo) -> Stamp:
        """A stamp from what the trace itself says."""
        machine = ", ".join(sorted({gpu.name for gpu in info.gpus})) or info.host
        nsys = f"nsys {info.product_version}" if info.product_version else ""
        return cls(" · ".join(filter(None, [machine, nsys])), "", info.recorded_utc[:10], profiled=True)

    def __str__(self) -> str:
        commit = f"commit {self.commit}" if self.commit else ""
        hows = {True: "measured under a profiler", False: "measured without a profiler"}
        how = hows[self.profiled] if self.profiled is not None else ""
        here = " · ".join(filter(None, [self.machine, commit, self.date]))
        if not self.recorded:
            return " · ".join(filter(None, [here, how]))
        return " · ".join(filter(None, [self.recorded, how, f"analysed on {here}" if here else ""]))


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


def empty(axes: Axes, message: str) -> None:
    """Say why there is nothing to draw."""
    axes.set_axis_off()
    axes.text(0.5, 0.5, message, ha="center", va="center", transform=axes.transAxes, color=MUTED, fontsize=12)
