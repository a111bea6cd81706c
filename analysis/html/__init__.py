"""report.html: one self-contained page about a trace or a run."""

from analysis.html.page import render, write
from analysis.html.view import Expectation, Hypothesis, Report, Run, Traced, figures, of_trace, traced

__all__ = [
    "Expectation",
    "Hypothesis",
    "Report",
    "Run",
    "Traced",
    "figures",
    "of_trace",
    "render",
    "traced",
    "write",
]
