"""The figures of memory traffic, as far as there is something to draw."""

from __future__ import annotations

from matplotlib.figure import Figure

from analysis.memory import Memory
from analysis.plots.dram import dram
from analysis.plots.roofline import roofline
from analysis.plots.style import Stamp


def memory_figures(measured: Memory, stamp: Stamp) -> dict[str, Figure]:
    """`roofline` and `dram` by the stem of their files; neither where nothing was measured.

    Nsight Compute knows kernels and no timeline, so from it alone there is no `dram`.
    """
    figures = {}
    if measured.period_ns or (measured.kernels["source"] == "ncu").any():
        figures["roofline"] = roofline(measured, stamp)
    if measured.period_ns:
        figures["dram"] = dram(measured, stamp)
    return figures
