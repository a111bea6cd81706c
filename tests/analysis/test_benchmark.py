"""The benchmark of the analysis: what is timed, what is said where nothing can be."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import psutil
import pytest

from analysis import Trace
from benchmarks import analysis as benchmark
from benchmarks import analysis_tools as tools
from benchmarks import kineto
from benchmarks.big_trace import write_big_trace
from benchmarks.timing import Run, Timing, measure, run


def test_time_and_memory_are_those_of_the_command_and_its_children() -> None:
    inner = "import time; block = bytearray(300 << 20); time.sleep(0.3)"
    found = run(
        [sys.executable, "-c", f"import subprocess; subprocess.run([{sys.executable!r}, '-c', {inner!r}])"],
        60,
    )
    assert found.wall_s >= 0.3 and found.peak_mib >= 300
    assert 0 < found.cpu_s < found.wall_s


def test_an_interrupt_ends_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(pid: int, options: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, "wait4", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run([sys.executable, "-c", "import time; time.sleep(311)"], 60)
    assert not any("time.sleep(311)" in " ".join(child.cmdline()) for child in psutil.Process().children())


def test_a_command_that_fails_or_takes_too_long_has_no_timing() -> None:
    failed = measure([sys.executable, "-c", "raise SystemExit('no such thing')"], 2, 60)
    assert not failed.runs and failed.why_not == "ended with 1 (no such thing)"
    late = measure([sys.executable, "-c", "import time; time.sleep(60)"], 2, 0.2)
    assert not late.runs and late.why_not.startswith("more than")


def test_the_least_disturbed_runs_count() -> None:
    timing = measure([sys.executable, "-c", "pass"], 2, 60)
    assert len(timing.runs) == 2
    assert timing.runs[0].others_cores <= timing.runs[1].others_cores


def test_a_tool_that_is_not_here_is_named_with_the_reason() -> None:
    ours = tools.Tool("ours", "everything", ["true"])
    theirs = tools.Tool("theirs", "something", None, "not installed")
    timed = Timing([Run(wall_s, 1, 100, 0) for wall_s in (3.0, 1.0, 2.0)])
    results = [
        benchmark.Result(tool, kernels, timing)
        for kernels in (200_000, 2_000_000)
        for tool, timing in ((ours, timed), (theirs, Timing(why_not="not run here: not installed")))
    ]
    header, _, first, second = benchmark.table(results).splitlines()
    assert "0.2 M kernels, s" in header and "2 M kernels, s" in header
    assert first == "| ours | 2.00 | 100 | 2.00 | 100 | everything |"
    assert second.count("not run here: not installed") == 2


def test_the_kineto_trace_holds_the_kernels_calls_and_ranges_of_the_export(tmp_path: Path) -> None:
    truth = write_big_trace(tmp_path / "t.sqlite", 500)
    kineto.write(tmp_path / "t.sqlite", tmp_path / "t.json")
    events = json.loads((tmp_path / "t.json").read_text())["traceEvents"]
    by_kind = {kind: [one for one in events if one["cat"] == kind] for kind in {one["cat"] for one in events}}
    kernels = by_kind["kernel"]
    assert [len(by_kind[kind]) for kind in ("kernel", "cuda_runtime", "user_annotation")] == [
        truth.kernels, truth.api_calls, truth.ranges,
    ]  # fmt: skip
    with Trace.open(tmp_path / "t.sqlite") as trace:
        durations = (trace.work["end_ns"] - trace.work["start_ns"]).sum()
        assert {one["name"] for one in by_kind["cuda_runtime"]} == set(trace.api["name"])
    assert sum(one["dur"] for one in kernels) * 1000 == pytest.approx(durations)
    launched = {one["args"]["correlation"] for one in by_kind["cuda_runtime"]}
    assert all(
        one["args"]["correlation"] in launched and one["args"]["stream"] == one["tid"] for one in kernels
    )
