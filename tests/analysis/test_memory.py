"""Memory traffic of whole traces: kernels, phases, the typical step."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from memory_trace import KERNELS, PERIOD_NS, STEPS, traced
from synthetic_export import Export

from analysis import Account, Trace, account
from analysis.memory import Memory, memory, memory_metrics, phases
from analysis.memory.phases import Traffic
from analysis.memory.roofline import classify
from analysis.memory.samples import Samples


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> tuple[Trace, Account, Memory]:
    path = traced(tmp_path_factory.mktemp("memory") / "trace.sqlite")
    with Trace.open(path) as trace:
        acc = account(trace)
        return trace, acc, memory(trace, acc)


def test_kernels_get_their_planted_values(known: tuple[Trace, Account, Memory]) -> None:
    kernels = known[2].kernels.set_index("name")
    for name, (_, read, write, issue, tensor) in KERNELS.items():
        kernel = kernels.loc[name]
        assert kernel["dram_read_gbps"] == pytest.approx(read / 100 * 4000, abs=60)
        assert kernel["dram_write_gbps"] == pytest.approx(write / 100 * 4000, abs=60)
        assert kernel["dram_gbps"] == pytest.approx((read + write) / 100 * 4000, abs=60)
        assert kernel["dram_low_gbps"] <= kernel["dram_gbps"] <= kernel["dram_high_gbps"]
        assert kernel["sm_issue_pct"] == pytest.approx(issue, abs=2)
        assert kernel["tensor_active_pct"] == pytest.approx(tensor, abs=2)
        assert kernel["bytes"] == pytest.approx(kernel["dram_gbps"] * kernel["total_ns"])
        floor_ns = kernel["bytes"] / 4000
        assert kernel["stall_ns"] == pytest.approx(kernel["total_ns"] - floor_ns)
    assert (kernels["source"] == "metrics").all()
    assert np.isnan(kernels["warps_pct"]).all()  # not recorded: unknown, not zero


def test_classes_and_late_launches(known: tuple[Trace, Account, Memory]) -> None:
    kernels = known[2].kernels.set_index("name")
    assert kernels["memory_class"].to_dict() == {
        "stream": "memory-bound", "matmul": "compute-bound", "tiny": "latency-bound",
    }  # fmt: skip
    assert kernels["host_starved"].to_dict() == {"stream": False, "matmul": False, "tiny": True}
    assert kernels.loc["tiny", "host_gap_ns"] == pytest.approx(9_000, rel=0.05)


def test_the_offset_between_the_clocks_is_reported(known: tuple[Trace, Account, Memory]) -> None:
    assert known[2].offset_ns == pytest.approx(12_000, abs=300)
    assert known[2].period_ns == PERIOD_NS


def test_phases_move_what_their_kernels_move(known: tuple[Trace, Account, Memory]) -> None:
    _, acc, measured = known
    phases = measured.phases.set_index("name")
    per_step = measured.kernels["bytes"].sum() / STEPS
    assert phases.loc["decode.step", "bytes_per_range"] == pytest.approx(per_step, rel=0.05)
    assert phases.loc["iter", "bytes_per_range"] == pytest.approx(per_step * STEPS, rel=0.03)
    row = acc.phase("iter")
    assert row is not None
    window = acc.window_ns[1] - acc.window_ns[0]
    assert phases.loc["iter", "dram_gbps"] == pytest.approx(per_step * STEPS / window, rel=0.03)
    floor_ns = phases.loc["iter", "bytes_per_range"] / 4000
    assert phases.loc["iter", "stall_ns"] == pytest.approx(row["busy_ns"] - floor_ns, rel=1e-6)


def test_the_typical_step_has_the_traffic_where_its_kernels_are(known: tuple[Trace, Account, Memory]) -> None:
    step = known[2].timeline
    total = step["dram_read_gbps"] + step["dram_write_gbps"]
    mean = known[2].phases.set_index("name").loc["decode.step", "dram_gbps"]
    assert total.mean() == pytest.approx(mean, rel=0.05)
    assert step["busy_share"].between(0, 1 + 1e-9).all()
    assert step["samples"].min() > 10
    assert np.corrcoef(total, step["busy_share"])[0, 1] > 0.5


def test_the_typical_step_lasts_as_long_as_the_median_one(known: tuple[Trace, Account, Memory]) -> None:
    trace, acc, measured = known
    with Trace.open(trace.path) as again:
        spans = phases.device_ranges(again, acc)
    steps = spans[spans["name"] == "decode.step"]
    time_us = measured.timeline["time_us"].to_numpy()
    assert np.diff(time_us) == pytest.approx(2 * time_us[0]), "times are the middles of the bins"
    median_us = (steps["end_ns"] - steps["start_ns"]).median() / 1e3
    assert time_us[-1] + time_us[0] == pytest.approx(median_us)


def test_a_step_of_another_length_is_no_part_of_the_typical_one() -> None:
    """Five steps of 100 µs at 10% of 1,000 GB/s, and one of 300 at 90%."""
    start = np.array([0, 100, 200, 300, 600, 700]) * 1_000
    end = np.append(start[1:], 800_000)
    steps = {"domain": "harness", "name": "decode.step", "device": 0, "start_ns": start, "end_ns": end}
    at = np.arange(0, 800_000, PERIOD_NS)
    read = np.where((at >= 300_000) & (at < 600_000), 90.0, 10.0)
    values = {"dram_read_pct": read, "dram_write_pct": np.zeros(len(at))}
    sampled = Samples(0, at, at + PERIOD_NS, PERIOD_NS, values)
    work = pd.DataFrame({"device": 0, "start_ns": start, "end_ns": end})
    trace: Any = SimpleNamespace(work=work)
    found = phases.timeline(pd.DataFrame(steps), trace, {0: Traffic.of(sampled, 0)}, PERIOD_NS, 1_000.0)
    assert found["dram_read_gbps"].to_numpy() == pytest.approx(100)
    assert found["samples"].sum() == pytest.approx(50, rel=0.01)


def test_of_two_gpus_a_phase_stalls_beyond_the_bytes_of_both() -> None:
    """Two ranges of 400 µs on both, always busy, at 10% and 50% of 1,000 GB/s: 480 of 1,600 µs are moving."""
    at = np.arange(0, 800_000, PERIOD_NS)
    traffic = {
        device: Traffic.of(
            Samples(device, at, at + PERIOD_NS, PERIOD_NS,
                    {"dram_read_pct": np.full(len(at), percent), "dram_write_pct": np.zeros(len(at))}), 0
        )
        for device, percent in enumerate((10.0, 50.0))
    }  # fmt: skip
    start = np.array([0, 400_000, 0, 400_000])
    spans = {"domain": "", "name": "p", "device": [0, 0, 1, 1], "start_ns": start, "end_ns": start + 400_000}
    acc: Any = SimpleNamespace(
        phases=pd.DataFrame({"domain": [""], "name": ["p"], "count": [2], "busy_ns": [1_600_000]})
    )
    (row,) = phases.phase_table(pd.DataFrame(spans), acc, traffic, PERIOD_NS, 1_000.0).to_dict("records")
    assert row["dram_share"] == pytest.approx(0.3) and row["bytes_per_range"] == pytest.approx(120e6)
    assert row["stall_ns"] == pytest.approx(1_600_000 - 480_000)


def test_samples_that_the_profiler_lost_are_said(
    known: tuple[Trace, Account, Memory], tmp_path: Path
) -> None:
    assert known[2].warnings == []
    path = traced(tmp_path / "t.sqlite")
    with closing(sqlite3.connect(path)) as database:
        for first_ns in (2_000_000, 4_000_000):
            lost = (first_ns, first_ns + 5 * PERIOD_NS)
            database.execute("DELETE FROM GPU_METRICS WHERE timestamp BETWEEN ? AND ?", lost)
        database.commit()
    with Trace.open(path) as trace:
        (warning,) = memory(trace, account(trace)).warnings
    assert warning == "2 holes in the samples of GPU metrics: the profiler lost some"


def test_a_kernel_is_starved_by_the_host_and_not_by_the_device(tmp_path: Path) -> None:
    """`early` waits 50 µs on the device for no reason that the trace knows, `late` 50 for its launch call."""
    export = Export()
    for number, (name, called, start) in enumerate(
        (("first", 0, 1_000), ("early", 100, 61_000), ("late", 119_000, 121_000))
    ):
        export.call(called, called + 50, number)
        export.kernel(start, start + 10_000, number, name=name)
    with Trace.open(export.write(tmp_path / "t.sqlite")) as trace:
        kernels = memory(trace, account(trace)).kernels.set_index("name")
    assert kernels["host_gap_ns"].to_dict() == {"first": 0, "early": 0, "late": 50_000}
    assert kernels["host_starved"].to_dict() == {"first": False, "early": False, "late": True}


def test_metrics_are_those_of_the_decode_step(known: tuple[Trace, Account, Memory]) -> None:
    values = memory_metrics(known[2])
    step = known[2].phases.set_index("name").loc["decode.step"]
    assert values["decode.bytes_per_step"] == step["bytes_per_range"]
    assert values["decode.dram_share"] == pytest.approx(values["decode.dram_gbps"] / 4000)
    assert "iter.dram_gbps" in values


def test_the_same_trace_gives_the_same_numbers(known: tuple[Trace, Account, Memory]) -> None:
    trace, _, measured = known
    with Trace.open(trace.path) as again:
        assert memory(again, account(again)).kernels.equals(measured.kernels)


def test_without_the_peak_there_are_shares_but_no_bytes(tmp_path: Path) -> None:
    with Trace.open(traced(tmp_path / "no_peak.sqlite", peak_bps=0)) as trace:
        measured = memory(trace, account(trace))
    kernels = measured.kernels.set_index("name")
    assert kernels.loc["stream", "dram_share"] == pytest.approx(0.8, abs=0.02)
    assert kernels.loc["stream", "memory_class"] == "memory-bound"
    assert measured.kernels[["dram_gbps", "bytes", "stall_ns"]].isna().all(axis=None)
    assert "peak" in measured.note
    assert set(memory_metrics(measured)) == {"decode.dram_share", "iter.dram_share"}


def test_without_metrics_everything_is_unknown_and_says_how_to_record(tmp_path: Path) -> None:
    with Trace.open(traced(tmp_path / "plain.sqlite", metrics=False)) as trace:
        measured = memory(trace, account(trace))
    assert "--gpu-metrics-devices" in measured.note
    assert "NVreg_RestrictProfilingToAdminUsers" in measured.note
    assert (measured.kernels["memory_class"] == "unknown").all()
    assert measured.kernels[["dram_gbps", "bytes", "stall_ns"]].isna().all(axis=None)
    assert measured.kernels["host_starved"].any()  # needs no metrics
    assert measured.phases.empty
    assert measured.timeline.empty
    assert memory_metrics(measured) == {}


@pytest.mark.parametrize(
    ("memory_pct", "compute_pct", "expected"),
    [
        (59.9, 59.9, "latency-bound"),
        (85, 20, "memory-bound"),
        (65, 50, "memory-bound"),
        (20, 61, "compute-bound"),
        (65, 62, "balanced"),
        (85, 83, "memory-bound"),
        (np.nan, 90, "unknown"),
        (90, np.nan, "unknown"),
    ],
)
def test_classes_are_those_of_nsight_compute(memory_pct: float, compute_pct: float, expected: str) -> None:
    assert classify(np.array([memory_pct]), np.array([compute_pct]))[0] == expected
