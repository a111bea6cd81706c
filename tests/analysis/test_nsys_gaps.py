"""nsys's own rule for gaps, an independent computation, finds the idle time that the account finds."""

from __future__ import annotations

import csv
import lzma
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from analysis import Trace, account
from benchmarks.nsys_reports import gaps_command
from harness import nsys


@pytest.mark.nsys
@pytest.mark.parametrize("name", ["h200_queue", "h200_graph", "h200_eager_2025.3", "h200_sdpa"])
def test_every_gap_is_one_that_nsys_finds_too(
    name: str, recorded: Callable[[str], Path], tmp_path: Path
) -> None:
    trace = tmp_path / "trace.sqlite"  # nsys doesn't read packed ones
    trace.write_bytes(lzma.decompress(recorded(name).read_bytes()))
    program = nsys.find()
    command = gaps_command(program, trace) if program else None
    if command is None:
        pytest.skip("NOT TESTED against nsys: no nsys with a rule for gaps (gpu_gaps, gpu-starv)")
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    lines = said[said.index("Row#") :].splitlines()
    theirs = sorted((int(row["Start (ns)"]), int(row["Duration (ns)"])) for row in csv.DictReader(lines))

    with Trace.open(trace) as opened:
        acc = account(opened)
        first, last = opened.work["start_ns"].min(), opened.work["end_ns"].max()
    # nsys looks between the first and the last work, the account at all of the iterations.
    inner = acc.gaps[(acc.gaps["start_ns"] >= first) & (acc.gaps["end_ns"] <= last)]
    assert list(zip(inner["start_ns"], inner["dur_ns"], strict=True)) == theirs
    outside = (first - acc.window_ns[0]) + (acc.window_ns[1] - last)
    (idle_ns,) = acc.devices["idle_ns"]
    assert idle_ns == sum(duration for _, duration in theirs) + outside
