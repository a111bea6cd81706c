"""Values of kernels from samples that are longer than they are, on traces whose truth is known."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_export import Export

from analysis import Trace, TraceError
from analysis.memory import deconvolve, samples
from analysis.memory.measure import TIMING_NS
from analysis.memory.samples import Samples


@dataclass(frozen=True)
class Planted:
    """A device that runs kernels of known values, and the samples that a profiler would take of it."""

    samples: Samples
    start: np.ndarray
    end: np.ndarray
    code: np.ndarray
    value: np.ndarray


def planted(seed: int, kinds: int = 6, steps: int = 400, period: int = 10_000, offset: int = 0) -> Planted:
    """`steps` repetitions of a step of 20 kernels of 1 to 6 µs; whole percents, rounded up as nsys does."""
    draw = np.random.default_rng(seed)
    value = draw.uniform(2, 95, kinds)
    order = np.concatenate([np.arange(kinds), draw.integers(0, kinds, 20 - kinds)])
    mean = draw.uniform(1_000, 6_000, kinds)
    code = np.tile(order, steps)
    length = (mean[code] * draw.uniform(0.9, 1.1, len(code))).astype(np.int64)
    gap = draw.integers(300, 3_000, len(code))
    end = np.cumsum(length + gap)
    start = end - length
    edges = np.arange(0, end[-1], period)
    seen = deconvolve.overlap(edges[:-1], edges[1:], start, end, code, kinds) @ value
    stored = {
        "dram_read_pct": np.ceil(seen * 0.8),
        "dram_write_pct": np.ceil(seen * 0.2),
        "sm_active_pct": np.ceil(seen * 0.9),
    }
    return Planted(
        Samples(0, edges[:-1] + offset, edges[1:] + offset, period, stored), start, end, code, value
    )


def fitted(one: Planted, offset: int = 0) -> deconvolve.Fit:
    edges = one.samples.start_ns - offset, one.samples.end_ns - offset
    work = one.start, one.end, one.code, len(one.value)
    design, *shifted = (
        deconvolve.overlap(edges[0] + shift, edges[1] + shift, *work) for shift in (0, -TIMING_NS, TIMING_NS)
    )
    return deconvolve.fit(design, one.samples.values, np.random.default_rng(0), shifted)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([5_000, 10_000]))
def test_kernels_shorter_than_a_sample_get_their_values_back(seed: int, period: int) -> None:
    one = planted(seed, period=period)
    found = fitted(one)
    enough = found.samples >= deconvolve.MIN_SAMPLES
    assert (np.isfinite(found.value["dram_pct"]) == enough).all()
    assert enough.sum() >= 2
    assert np.abs(found.value["dram_pct"] - one.value)[enough].max() < 1
    assert found.r2["dram_pct"] > 0.95


def test_intervals_cover_the_truth_at_least_as_often_as_they_say() -> None:
    inside = []
    for seed in range(40):
        one = planted(seed, steps=150)
        found = fitted(one)
        low, high = found.low, found.high
        inside += ((low <= one.value) & (one.value <= high))[np.isfinite(low)].tolist()
    assert len(inside) > 80
    assert np.mean(inside) > 0.93


@pytest.mark.parametrize("offset", [-23_000, -4_000, 0, 7_300, 26_000])
def test_the_offset_between_the_clocks_is_found(offset: int) -> None:
    one = planted(3, offset=offset)
    found, explained = deconvolve.clock_offset(one.samples, one.start, one.end, one.code, len(one.value))
    assert abs(found - offset) <= 300
    assert explained > 0.95
    assert np.nanmax(np.abs(fitted(one, found).value["dram_pct"] - one.value)) < 3


def test_without_the_offset_values_would_be_wrong() -> None:
    one = planted(3, offset=26_000)
    assert np.nanmax(np.abs(fitted(one).value["dram_pct"] - one.value)) > 10


def test_few_samples_give_no_value() -> None:
    one = planted(1, steps=3)
    found = fitted(one)
    assert (found.samples < deconvolve.MIN_SAMPLES).all()
    assert np.isnan(found.value["dram_pct"]).all()
    assert np.isnan(found.low).all()


def test_kernels_that_always_come_together_are_not_told_apart() -> None:
    start = np.arange(0, 20_000_000, 20_000)
    both = np.concatenate([start, start])  # two streams, always at once
    design = deconvolve.overlap(
        np.arange(0, 20_000_000, 7_000), np.arange(7_000, 20_007_000, 7_000), both, both + 5_000,
        np.repeat([0, 1], len(start)), 2,
    )  # fmt: skip
    values = {"dram_read_pct": design @ np.array([10.0, 70.0]), "dram_write_pct": np.zeros(design.shape[0])}
    found = deconvolve.fit(design, values, np.random.default_rng(0))
    assert np.isnan(found.value["dram_pct"]).all()


def test_a_kernel_that_never_ran_has_no_value() -> None:
    one = planted(5)
    edges = one.samples.start_ns, one.samples.end_ns
    design = deconvolve.overlap(*edges, one.start, one.end, one.code, len(one.value) + 1)
    found = deconvolve.fit(design, one.samples.values, np.random.default_rng(0))
    assert np.isnan(found.value["dram_pct"][-1])
    assert found.samples[-1] < 1e-6
    assert np.isfinite(found.value["dram_pct"][:-1]).all()


def test_overlap_is_the_part_of_each_interval() -> None:
    start, end = np.array([0, 10, 30]), np.array([10, 20, 40])  # a hole from 20 to 30
    work_start, work_end = np.array([2, 8, 15, 0]), np.array([4, 13, 35, 40])
    part = deconvolve.overlap(start, end, work_start, work_end, np.array([0, 0, 1, 2]), 3).toarray()
    assert part.tolist() == [[0.4, 0, 1], [0.3, 0.5, 1], [0, 0.5, 1]]


NAMES = {
    7: "DRAM Read Bandwidth [Throughput %]",
    8: "DRAM Write Bandwidth [Throughput %]",
    9: "SMs Active [Throughput %]",
    10: "Compute Warps in Flight [Avg Warps per Cycle]",
    11: "GPC Clock Frequency [MHz]",
}


def with_metrics(path: Path, rows: list[tuple[int, int, int, int]], names: dict[int, str] = NAMES) -> Path:
    """A trace with rows (time, typeId, metricId, value) of GPU metrics, of two GPUs with one type each."""
    export = Export()
    export.kernel(0, 100, 1)
    export.write(path)
    database = sqlite3.connect(path)
    database.execute(
        "CREATE TABLE GPU_METRICS (rawTimestamp INTEGER, timestamp INTEGER, typeId INTEGER NOT NULL, "
        "metricId INTEGER NOT NULL, value INTEGER NOT NULL)"
    )
    database.execute(
        "CREATE TABLE TARGET_INFO_GPU_METRICS (sourceId INTEGER, typeId INTEGER, typeName TEXT, "
        "metricId INTEGER, metricName TEXT)"
    )
    database.executemany("INSERT INTO GPU_METRICS VALUES (?, ?, ?, ?, ?)", [(row[0], *row) for row in rows])
    types = {row[1] for row in rows} or {0x100}
    named = [(1, one, "GH100", metric, name) for one in types for metric, name in names.items()]
    database.executemany("INSERT INTO TARGET_INFO_GPU_METRICS VALUES (?, ?, ?, ?, ?)", named)
    database.commit()
    return path


def sampled(path: Path, window_ns: tuple[int, int] | None = None) -> list[Samples]:
    with Trace.open(path) as trace:
        return samples.read(trace.export, window_ns)


def test_samples_are_read_by_name_and_per_device(tmp_path: Path) -> None:
    rows = [
        (time, gpu, metric, metric + time // 10_000 + (gpu & 1) * 50)
        for time in range(10_000, 100_001, 10_000)
        for gpu in (0x100, 0x101)
        for metric in (7, 8, 10)
    ]
    rows += [(10_000, 0x100, 11, 1_980_000_000), (110_000, 0x100, 7, 1)]  # the last one is incomplete
    first, second = sampled(with_metrics(tmp_path / "t.sqlite", rows[::-1]))
    assert (first.device, second.device, first.period_ns) == (0, 1, 10_000)
    assert set(first.values) == {"dram_read_pct", "dram_write_pct"}
    assert first.values["dram_read_pct"].tolist() == [8, 9, 10, 11, 12, 13, 14, 15, 16, 17]
    assert second.values["dram_write_pct"][0] == 59
    assert first.start_ns[0] == 10_000
    assert first.end_ns[-1] == 110_000


def test_only_the_window_is_read(tmp_path: Path) -> None:
    rows = [(time, 0x100, 7, 5) for time in range(0, 1_000_000, 10_000)]
    (one,) = sampled(with_metrics(tmp_path / "t.sqlite", rows), (200_000, 300_000))
    assert (one.start_ns[0], one.start_ns[-1]) == (200_000, 300_000)


def test_a_sample_before_a_hole_covers_one_period(tmp_path: Path) -> None:
    rows = [(time, 0x100, 7, 5) for time in [*range(0, 100_000, 10_000), *range(500_000, 600_000, 10_000)]]
    (one,) = sampled(with_metrics(tmp_path / "t.sqlite", rows))
    assert (one.end_ns - one.start_ns).tolist() == [10_000] * 20


def test_a_trace_without_metrics_has_no_samples(tmp_path: Path) -> None:
    assert sampled(Export().write(tmp_path / "none.sqlite")) == []
    assert sampled(with_metrics(tmp_path / "unnamed.sqlite", [(1, 1, 7, 5)], {7: "PCIe RX"})) == []
    assert sampled(with_metrics(tmp_path / "empty.sqlite", [])) == []


def test_values_that_are_no_percent_are_refused(tmp_path: Path) -> None:
    rows = [(time, 0x100, 7, 40_000) for time in range(0, 100_000, 10_000)]
    with pytest.raises(TraceError, match=r"dram_read_pct.*40,000"):
        sampled(with_metrics(tmp_path / "t.sqlite", rows))


@pytest.mark.parametrize(
    ("spelling", "metric"),
    [
        ("DRAM Read Bandwidth [Throughput %]", "dram_read_pct"),
        ("DRAM Write Throughput [Throughput %]", "dram_write_pct"),
        ("SM Active", "sm_active_pct"),
        ("Compute Warps in Flight [Throughput %]", "warps_pct"),
        ("Compute Warps in Flight [Avg Warps per Cycle]", None),
        ("Unallocated Warps in Active SMs [Throughput %]", None),
        ("Async Compute in Flight", None),
    ],
)
def test_spellings(spelling: str, metric: str | None) -> None:
    assert samples.canonical(spelling) == metric
