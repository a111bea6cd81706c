"""Gaps of known number and length are found: tests/gpu/queue.cu, recorded on an H200."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from analysis import Trace, account


def test_planted_host_pauses_are_found_as_launch_gaps(recorded: Callable[[str], Path]) -> None:
    with Trace.open(recorded("h200_queue")) as trace:
        acc = account(trace)
    assert acc.devices["kernels"].tolist() == [201]
    waits = acc.gaps[acc.gaps["cause"] == "launch"]
    pauses = waits[waits["dur_ns"].between(100_000, 150_000)]
    assert len(pauses) == 100, "one before each of the second hundred kernels"
    # 100 us of pause, and around it the way from the kernel's end to the host and back: 12 us here.
    assert 105_000 <= pauses["dur_ns"].median() <= 120_000
    queued = acc.gaps[acc.gaps["cause"] == "queued"]
    assert len(queued) == 99, "the first hundred kernels were launched ahead"
    assert queued["dur_ns"].max() < 5_000
