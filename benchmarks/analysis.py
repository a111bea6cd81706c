"""`python -m benchmarks.analysis`: time and memory of analysing a large trace, beside other tools.

The exports come from benchmarks/big_trace.py and are kept in outputs/benchmarks/. Each tool runs several
times as a process of its own; the table goes to results/analysis-benchmark.md. Tools that are not installed
are named in it. Exit codes: 0 measured, 2 usage, 5 a file can't be written.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil

from benchmarks import analysis_tools as tools
from benchmarks import kineto
from benchmarks.timing import ONCE_ABOVE_S, QUIET_CORES, Timing, measure
from harness.environment import PROJECT, cpu, git
from harness.errors import ExitCode
from harness.record import code_label

FOLDER = PROJECT / "outputs" / "benchmarks"
PAGE = PROJECT / "results" / "analysis-benchmark.md"
KERNELS = 2_000_000
WARM_UP_KERNELS = 30_000  # enough to compile loops (`engine.compiled`) and to have all files in memory
PATIENCE_S = 300.0
WAIT_S = 300.0  # for a quiet moment
_MEMORY_SHARE = 0.5  # of what is available: a tool that would need more is not run

_RULES = {"once": ONCE_ABOVE_S, "quiet": QUIET_CORES}
_PAGE = """\
# How long does an analysis take?

`python -m benchmarks.analysis` runs each tool as a process of its own on exports of {sizes} kernels from
`benchmarks/big_trace.py`, which look like nsys 2025.3's: one launch call per kernel, 12 NVTX ranges per 1,200
kernels. Wall time, the start of the program included, is the median of {repeat} run(s), or of one where that
takes more than {once:g} s; a tool is given {patience:g} s. Memory is the largest resident set of any of its
processes. Caches are warm: the files are in the page cache, and loops have been compiled by a run on a small
trace. Runs wait up to {wait:g} s for a quiet machine; those during which others kept more than {quiet:g}
cores busy are repeated, twice as often as asked for at most.

{table}
{largest}
{origin}
"""


@dataclass(frozen=True)
class Result:
    """A tool's timing on exports of one size."""

    tool: tools.Tool
    kernels: int
    timing: Timing

    def as_json(self) -> dict[str, Any]:
        return {"tool": self.tool.name, "kernels": self.kernels, **self.timing.as_json()}


def inputs(kernels: int, *, with_kineto: bool) -> tools.Inputs:
    """The exports of this size, made unless they are there."""
    trace, other = (_export(kernels, seed) for seed in (0, 1))
    converted = FOLDER / f"{kernels}.kineto.json"
    if with_kineto and not converted.exists():
        unfinished = converted.with_suffix(".part")
        kineto.write(trace, unfinished)
        unfinished.rename(converted)
    return tools.Inputs(trace, other, converted)


def _export(kernels: int, seed: int) -> Path:
    path = FOLDER / f"{kernels}-{seed}.sqlite"
    if not path.with_suffix(".json").exists():  # which is written last
        # Not in this process, which has to stay small.
        options = ["--kernels", str(kernels), "--seed", str(seed)]
        command = [sys.executable, "-m", "benchmarks.big_trace", str(path), *options]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=PROJECT)
    return path


def measured(
    sizes: Sequence[int],
    repeat: int,
    hta: Path | str | None,
    *,
    readers: bool,
    patience_s: float,
    wait_s: float,
) -> Iterator[Result]:
    """Each tool on each size, after a run on a small trace that doesn't count."""
    needs_kineto = isinstance(hta, Path)
    for tool in tools.tools(inputs(WARM_UP_KERNELS, with_kineto=needs_kineto), hta, readers=readers):
        if tool.command:
            measure(tool.command, 1, patience_s)
    earlier: dict[str, Result] = {}
    for kernels in sorted(sizes):
        for tool in tools.tools(inputs(kernels, with_kineto=needs_kineto), hta, readers=readers):
            hopeless = tool.why_not if tool.command is None else _hopeless(earlier.get(tool.name), kernels)
            timing = Timing(why_not=f"not run here: {hopeless}")
            if tool.command and not hopeless:
                timing = measure(tool.command, repeat, patience_s, wait_s)
            result = earlier[tool.name] = Result(tool, kernels, timing)
            print(_line(result), flush=True)
            yield result


def largest(kernels: int, patience_s: float, wait_s: float) -> str:
    """A sentence about the account of one trace that may be too large for all other tools."""
    trace = _export(kernels, seed=0)
    _, tool, *_ = tools.tools(tools.Inputs(trace, trace, trace), None, readers=False)
    result = Result(tool, kernels, measure(tool.command or [], 1, patience_s, wait_s))
    print(_line(result), flush=True)
    wall, peak = _cells(result)
    taken = f"takes {wall} s and {peak} MiB" if result.timing.runs else f"was given up: {wall}"
    return f"\nWith {kernels / 1e6:g} M kernels, {tool.name} {taken}.\n"


def _hopeless(smaller: Result | None, kernels: int) -> str:
    """Why there is no point in running a tool on so many kernels, by its run on fewer; "" if there is."""
    if smaller is None:
        return ""
    if not smaller.timing.runs:
        return f"{smaller.kernels / 1e6:g} M were too many"
    needed_mib = smaller.timing.peak_mib * kernels / smaller.kernels
    if needed_mib > _MEMORY_SHARE * psutil.virtual_memory().available / 2**20:
        return f"it would take some {needed_mib / 1024:.0f} GiB"
    return ""


def _line(result: Result) -> str:
    wall, peak = _cells(result)
    others = max((run.others_cores for run in result.timing.runs), default=0.0)
    loaded = f"  (others kept {others:.1f} cores busy)" if others > QUIET_CORES else ""
    return f"{result.kernels:>10,} kernels, s: {wall:>7}, MiB: {peak:>6}  {result.tool.name}{loaded}"


def _cells(result: Result) -> tuple[str, str]:
    timing = result.timing
    if not timing.runs:
        return timing.why_not, "–"
    return f"{timing.wall_s:.2f}", f"{timing.peak_mib:,.0f}"


def table(results: Sequence[Result]) -> str:
    """One row per tool, two columns per size."""
    from harness.results import markdown  # after all measurements: with pandas this process isn't small

    sizes = list(dict.fromkeys(result.kernels for result in results))
    names = list(dict.fromkeys(result.tool.name for result in results))
    found = {(result.tool.name, result.kernels): result for result in results}
    header = ["tool"]
    for kernels in sizes:
        header += [f"{kernels / 1e6:g} M kernels, s", "MiB"]
    rows = []
    for name in names:
        cells = [cell for kernels in sizes for cell in _cells(found[name, kernels])]
        rows.append([name, *cells, found[name, sizes[0]].tool.what])
    return markdown([*header, "what it does"], rows)


def origin(results: Sequence[Result], hta: Path | str | None) -> str:
    """Machine, versions, date, code, and how much else the machine had to do."""
    memory_gib = psutil.virtual_memory().total / 2**30
    cores = len(os.sched_getaffinity(0))
    machine = f"{cpu()['model']}, {cores} cores, {memory_gib:.0f} GiB, {platform.system()}"
    versions = [f"Python {platform.python_version()}"]
    versions += [f"{name} {version(name)}" for name in ("numpy", "pandas", "numba") if find_spec(name)]
    versions += [tools.nsys_version(), tools.hta_version(hta) if isinstance(hta, Path) else ""]
    others = max((run.others_cores for result in results for run in result.timing.runs), default=0.0)
    code = git(PROJECT)
    return (
        f"{machine}; {', '.join(filter(None, versions))}; {datetime.now(UTC):%Y-%m-%d}, "
        f"{code_label(code['commit'], code['dirty'])}. Other processes kept {others:.2f} cores busy at most."
    )


def main(argv: list[str] | None = None) -> int:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.analysis", description=__doc__, formatter_class=form
    )
    parser.add_argument("--kernels", type=int, nargs="+", default=[KERNELS], metavar="N", help="default: 2 M")
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="runs of each; default: 3")
    parser.add_argument("--with-hta", action="store_true", help="also HolisticTraceAnalysis, installed apart")
    parser.add_argument("--readers", action="store_true", help="also what only reads the tables")
    parser.add_argument(
        "--patience", type=float, default=PATIENCE_S, metavar="S", help="per run; default: %(default)g s"
    )
    parser.add_argument(
        "--wait", type=float, default=WAIT_S, metavar="S", help="for a quiet moment; default: %(default)g s"
    )
    parser.add_argument(
        "--largest", type=int, metavar="N", help="also an account of so many kernels; 20 M take a 2.5 GB file"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all runs here")
    parser.add_argument("--markdown", type=Path, default=PAGE, metavar="FILE", help="default: %(default)s")
    arguments = parser.parse_args(argv)
    if min(*arguments.kernels, arguments.repeat, 1) < 1:
        parser.error("--kernels and --repeat have to be at least 1")
    try:
        FOLDER.mkdir(parents=True, exist_ok=True)
        hta = tools.install_hta(FOLDER / "hta") if arguments.with_hta else None
        limits = {"patience_s": arguments.patience, "wait_s": arguments.wait}
        found = measured(arguments.kernels, arguments.repeat, hta, readers=arguments.readers, **limits)
        results = list(found)
        if arguments.json:
            made = {"origin": origin(results, hta), "results": [result.as_json() for result in results]}
            arguments.json.write_text(json.dumps(made, indent=1) + "\n")
        sizes = " and ".join(f"{kernels / 1e6:g} M" for kernels in sorted(arguments.kernels))
        beyond = largest(arguments.largest, **limits) if arguments.largest else ""
        page = {"largest": beyond, "table": table(results), "origin": origin(results, hta), "sizes": sizes}
        rules = {"patience": arguments.patience, "wait": arguments.wait, "repeat": arguments.repeat}
        arguments.markdown.write_text(_PAGE.format(**page, **_RULES, **rules))
    except OSError as error:
        print(f"error: {error.filename} can't be written: {error.strerror}", file=sys.stderr)
        return ExitCode.STORAGE
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(main())
