"""Figures: one function per figure, tables in, `matplotlib.figure.Figure` out; nothing global is touched."""

from analysis.plots.dram import dram
from analysis.plots.gap_histogram import gaps
from analysis.plots.of_memory import memory_figures
from analysis.plots.roofline import roofline
from analysis.plots.scope_ladder import ladder
from analysis.plots.step_timeline import timeline
from analysis.plots.style import Stamp, save
from analysis.plots.token_latency import latency

__all__ = [
    "Stamp", "dram", "gaps", "ladder", "latency", "memory_figures", "roofline", "save", "timeline",
]  # fmt: skip
