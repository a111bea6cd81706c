"""Traces of the size that is read page by page and looped over in machine code: the same account, exactly."""

from __future__ import annotations

from pathlib import Path

from analysis import Trace, account
from analysis.engine.compiled import pays
from benchmarks.big_trace import write_big_trace


def test_a_trace_worth_compiling_for_is_accounted_for_exactly(tmp_path: Path) -> None:
    truth = write_big_trace(tmp_path / "t.sqlite", 21_001)
    assert pays(truth.kernels), "the tests have numba"
    with Trace.open(tmp_path / "t.sqlite") as trace:
        acc = account(trace)
        assert (len(trace.api), len(trace.ranges)) == (truth.api_calls, truth.ranges)
    (device,) = acc.devices.to_dict("records")
    assert acc.window_ns == truth.window_ns
    assert (device["kernels"], device["busy_ns"], device["idle_ns"]) == (
        truth.kernels, truth.busy_ns, truth.idle_ns,
    )  # fmt: skip
    assert len(acc.gaps) == truth.gaps
    parts = acc.segments(acc.gaps.index.to_numpy())
    assert parts.groupby("gap")["dur_ns"].sum().tolist() == acc.gaps["dur_ns"].tolist()
    # One process without events, graphs or overhead: each wait has a cause that can be told.
    assert set(parts["cause"]) == {"host", "sync", "launch", "dependency", "dispatch"}


def test_the_same_seed_writes_the_same_export(tmp_path: Path) -> None:
    files = [tmp_path / name for name in "ab"]
    assert write_big_trace(files[0], 1000, seed=7) == write_big_trace(files[1], 1000, seed=7)
    assert files[0].read_bytes() == files[1].read_bytes()
