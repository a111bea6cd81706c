"""Gaps of known number and length are found: tests/gpu/queue.cu, recorded on an H200."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from analysis import Trace, account


def test_planted_host_pauses_are_found_as_launch_gaps(recorded: Callable[[str], Path]) -> None:
    with Trace.open(recorded("h200_queue")) as trace:
        acc = account(trace)
    assert acc.devices["kernels"].tolist() == [201]
    pauses = acc.gaps[acc.gaps["dur_ns"].between(100_000, 150_000)]
    assert len(pauses) == 100, "one before each of the second hundred kernels"
    parts = acc.segments(pauses.index.to_numpy())
    spent = parts.groupby(["gap", "cause"], observed=False)["dur_ns"].sum().unstack()
    # The program counts 100 us of its own; around it are the way from the kernel's end to the host and back.
    assert spent["host"].between(100_000, 110_000).all()
    assert ((spent["host"] + spent["sync"] + spent["launch"]) / spent.sum(axis=1) > 0.98).all()
    assert (spent["sync"] > 0).all() and (spent["launch"] > 0).all()
    queued = acc.gaps[acc.gaps["cause"] == "dispatch"]
    assert len(queued) == 99, "the first hundred kernels were launched ahead"
    assert queued["dur_ns"].max() < 5_000
