"""What is timed: this project's analysis, and other tools that read the same export or its like."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from benchmarks import nsys_reports
from harness import nsys
from harness.errors import UserError

_ACCOUNT = "import sys; from analysis import Trace, account; account(Trace.open(sys.argv[1]))"
_QUERIES = (
    'SELECT start, "end", deviceId, contextId, streamId, correlationId, globalPid, demangledName,'
    " gridX, gridY, gridZ, blockX, blockY, blockZ FROM CUPTI_ACTIVITY_KIND_KERNEL",
    'SELECT start, "end", globalTid, correlationId, nameId FROM CUPTI_ACTIVITY_KIND_RUNTIME',
)
_SQLITE = f"""
import sqlite3, sys
database = sqlite3.connect(sys.argv[1])
tables = [database.execute(query).fetchall() for query in {_QUERIES}]
"""
_PANDAS = f"""
import sqlite3, sys, pandas
database = sqlite3.connect(sys.argv[1])
tables = [pandas.read_sql(query, database) for query in {_QUERIES}]
"""
_CONNECTORX = f"""
import sys, connectorx
tables = [connectorx.read_sql("sqlite://" + sys.argv[1], query) for query in {_QUERIES}]
"""
_HTA = """
import sys
from hta.trace_analysis import TraceAnalysis
analysis = TraceAnalysis(trace_files={0: sys.argv[1]}, trace_dir="")
print(analysis.get_temporal_breakdown(visualize=False))
print(analysis.get_idle_time_breakdown(ranks=[0], visualize=False)[0])
"""


@dataclass(frozen=True)
class Inputs:
    """Two exports (absolute paths), and the first as a Kineto trace."""

    trace: Path
    other: Path
    kineto: Path


@dataclass(frozen=True)
class Tool:
    """A command, or why it can't be run here."""

    name: str
    what: str
    command: list[str] | None
    why_not: str = ""


def tools(inputs: Inputs, hta: Path | str | None, *, readers: bool) -> Iterator[Tool]:
    """`hta`: the Python that has it, or why there is none; None leaves it out."""
    python, trace = [sys.executable], str(inputs.trace)
    command = [*python, "-m", "analysis", trace, "--no-plots"]
    yield Tool("`python -m analysis TRACE --no-plots`", "idle time by cause, phase and kernel", command)
    yield Tool("`account(Trace.open(TRACE))`", "the same without tables", [*python, "-c", _ACCOUNT, trace])
    both = [*python, "-m", "analysis", "compare", trace, str(inputs.other)]
    yield Tool("`python -m analysis compare A B`", "two exports of this size, with intervals", both)
    yield from _of_nsys(inputs.trace)
    if hta is not None:
        theirs = [str(hta), "-c", _HTA, str(inputs.kineto)] if isinstance(hta, Path) else None
        what = "temporal and idle time breakdown, of a Kineto trace of the same kernels, calls and ranges"
        yield Tool("HolisticTraceAnalysis", what, theirs, "" if theirs else str(hta))
    if readers:
        what = "reads kernels and calls, no more"
        yield Tool("`sqlite3`, rows as tuples", what, [*python, "-c", _SQLITE, trace])
        yield Tool("`pandas.read_sql`", what, [*python, "-c", _PANDAS, trace])
        connectorx = [*python, "-c", _CONNECTORX, trace] if find_spec("connectorx") else None
        yield Tool("`connectorx.read_sql`", what, connectorx, "not installed")


def _of_nsys(trace: Path) -> Iterator[Tool]:
    program = nsys.find()
    for command, name, what in (
        (nsys_reports.projection_command, "nsys stats", "NVTX ranges projected onto the GPU"),
        (nsys_reports.gaps_command, "nsys analyze", "all gaps, without causes"),
    ):
        if program is None:
            yield Tool(f"`{name}`", what, None, "no nsys")
        elif found := command(program, trace):
            yield Tool(f"`{name} {found[2]} {found[3]}`", what, found)
        else:
            yield Tool(f"`{name}`", what, None, f"nsys {nsys.version(program)} has no such report")


def nsys_version() -> str:
    """Like "nsys 2025.3.1", "" without one."""
    try:
        program = nsys.find()
        return f"nsys {nsys.version(program)}" if program else ""
    except UserError:
        return ""


def install_hta(folder: Path) -> Path | str:
    """A Python with HolisticTraceAnalysis in a virtual environment of its own, or why there is none."""
    python = folder / "bin" / "python"
    if (folder / "installed").exists():
        return python
    for command in (
        [sys.executable, "-m", "venv", "--clear", str(folder)],
        [str(python), "-m", "pip", "install", "--quiet", "HolisticTraceAnalysis"],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            lines = done.stderr.strip().splitlines()
            return f"it can't be installed: {lines[-1] if lines else done.returncode}"
    (folder / "installed").touch()
    return python


def hta_version(python: Path) -> str:
    asked = "from importlib.metadata import version; print(version('HolisticTraceAnalysis'))"
    done = subprocess.run([python, "-c", asked], capture_output=True, text=True)
    return f"HolisticTraceAnalysis {done.stdout.strip()}"
