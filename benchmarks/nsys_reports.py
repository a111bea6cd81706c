"""nsys's own statistics of an export: their names in the version at hand, and how to ask for them."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from harness import tools

# The newest name first.
PROJECTION = ("nvtx_gpu_proj_sum", "nvtxgpuproj")  # `nsys stats`: the GPU time of NVTX ranges
GAPS = ("gpu_gaps", "gpu-starv")  # `nsys analyze`: the times when a GPU was idle


def projection_command(nsys: Path, trace: Path) -> list[str] | None:
    """Projects the NVTX ranges onto the GPU, as CSV on stdout; None if this nsys has no report for it."""
    report = _known(nsys, ["stats", "--help-reports"], PROJECTION)
    return [str(nsys), "stats", "--report", report, *_csv(trace)] if report else None


def gaps_command(nsys: Path, trace: Path) -> list[str] | None:
    """Lists all gaps between the first and the last work of each device, the longest first, as CSV on stdout;
    None if this nsys has no rule for it."""
    rule = _known(nsys, ["analyze", "--help-rules"], GAPS)
    return [str(nsys), "analyze", "--rule", f"{rule}:gap=0:rows=-1", *_csv(trace)] if rule else None


def _csv(trace: Path) -> list[str]:
    return ["--format", "csv", "--output", "-", str(trace)]


def _known(nsys: Path, question: Sequence[str], names: Sequence[str]) -> str | None:
    # It lists them and ends with an error.
    listed = subprocess.run(
        [nsys, *question], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=tools.PATIENCE_S
    )
    known = re.findall(r"^\s+([\w-]+)(?=[\[\s:])", listed.stdout, re.MULTILINE)
    return next((name for name in names if name in known), None)
