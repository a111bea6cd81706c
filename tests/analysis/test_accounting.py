"""Every nanosecond of a device is accounted for once, under the cause and the phase that it belongs to."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from synthetic_export import Export

from analysis import Account, Trace, account

NAMES = ("encode", "prefill", "decode", "decode.step")


def account_of(path: Path) -> Account:
    with Trace.open(path) as trace:
        return account(trace)


@st.composite
def programs(draw: st.DrawFn) -> Export:
    """Launches on up to two devices and three streams, inside randomly nested ranges; some without a call."""
    export = Export()
    export.domain("harness")
    if draw(st.booleans()):
        export.range("iter", draw(st.integers(0, 40)), draw(st.integers(60, 400)))
    time = 0
    for correlation in range(1, draw(st.integers(1, 14)) + 1):
        time += draw(st.integers(0, 20))
        call_end = time + draw(st.integers(0, 8))
        if draw(st.integers(0, 9)):
            export.call(time, call_end, correlation)
        device, stream = draw(st.integers(0, 1)), draw(st.integers(0, 2))
        start = time + draw(st.integers(0, 60))
        for node in range(draw(st.integers(1, 3))):
            end = start + draw(st.integers(0, 25))
            name = f"kernel_{correlation}_{node}"
            export.kernel(start, end, correlation, name=name, device=device, stream=stream, node=node or None)
            start = end + draw(st.integers(-10, 10))
        time = call_end
    _ranges(draw, export, 0, time + 1, levels=3)
    return export


def _ranges(draw: st.DrawFn, export: Export, start: int, end: int, levels: int) -> None:
    if levels == 0 or end - start < 2:
        return
    cuts = sorted(draw(st.lists(st.integers(start, end), max_size=4)))
    for left, right in zip(cuts[::2], cuts[1::2], strict=False):
        export.range(draw(st.sampled_from(NAMES)), left, right)
        _ranges(draw, export, left, right, levels - 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("programs")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(export=programs())
def test_busy_and_idle_add_up_to_the_window_exactly(folder: Path, export: Export) -> None:
    acc = account_of(export.write(folder / "a.sqlite"))
    kernels = export.rows["CUPTI_ACTIVITY_KIND_KERNEL"]
    window = range(*acc.window_ns)
    for device in acc.devices.to_dict("records"):
        spans = [(row[0], row[1]) for row in kernels if row[2] == device["device"]]
        busy = {ns for start, end in spans for ns in range(start, end) if ns in window}
        gaps = acc.gaps[acc.gaps["device"] == device["device"]]
        idle = [
            ns for gap in gaps.to_dict("records") for ns in range(gap["start_ns"], gap["end_ns"])
        ]  # fmt: skip
        assert device["busy_ns"] == len(busy)
        assert device["busy_ns"] + device["idle_ns"] == device["window_ns"] == len(window)
        assert len(idle) == device["idle_ns"] == gaps["dur_ns"].sum()
        assert set(idle) == set(window) - busy


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(export=programs(), seed=st.integers(0, 1000))
def test_the_order_of_rows_in_the_file_does_not_matter(folder: Path, export: Export, seed: int) -> None:
    one = account_of(export.write(folder / "a.sqlite"))
    other = account_of(export.write(folder / "b.sqlite", shuffle=seed))
    assert one.window_ns == other.window_ns
    pd.testing.assert_frame_equal(one.devices, other.devices)
    pd.testing.assert_frame_equal(one.gaps.astype(object), other.gaps.astype(object))
    pd.testing.assert_frame_equal(one.kernels, other.kernels)
    phases = [acc.phases.astype({"domain": str, "name": str}) for acc in (one, other)]
    pd.testing.assert_frame_equal(
        *(table.sort_values(["domain", "name"], ignore_index=True) for table in phases)
    )


def test_work_that_starts_and_ends_together_is_told_apart_the_same_way_in_any_order(tmp_path: Path) -> None:
    export = Export()
    for at in (0, 100):
        for stream in range(5):
            export.kernel(at, at + 10, at + stream, name=f"kernel_{stream}", stream=stream)
    paths = [export.write(tmp_path / f"{seed}.sqlite", shuffle=seed) for seed in range(5)]
    (pair,) = {tuple(account_of(path).gaps[["before", "after"]].iloc[0]) for path in paths}
    assert pair == ("kernel_4", "kernel_0")


def test_ranges_that_begin_and_end_together_nest_the_same_way_in_any_order(tmp_path: Path) -> None:
    export = Export()
    export.kernel(20, 30, 1)
    export.kernel(40, 50, 2)
    export.call(12, 15, 2)
    for name in NAMES:
        export.range(name, 10, 18)
    paths = [export.write(tmp_path / f"{seed}.sqlite", shuffle=seed) for seed in range(5)]
    assert {account_of(path).gaps["phase"].iloc[0] for path in paths} == {"prefill"}


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(export=programs())
def test_a_phase_never_has_more_than_the_device(folder: Path, export: Export) -> None:
    acc = account_of(export.write(folder / "a.sqlite"))
    assert (acc.phases[["wall_ns", "busy_ns", "idle_ns", "kernels"]] >= 0).all(axis=None)
    assert (acc.phases["busy_ns"] <= acc.devices["busy_ns"].sum()).all()
    assert (acc.phases["idle_ns"] <= acc.devices["idle_ns"].sum()).all()
    iteration = acc.phase("iter")
    if iteration is not None:
        assert iteration["wall_ns"] == acc.window_ns[1] - acc.window_ns[0]


def test_overlapping_streams_are_busy_once(tmp_path: Path) -> None:
    export = Export()
    for correlation, (start, end, stream) in enumerate(
        [(0, 100, 1), (10, 20, 2), (90, 130, 2), (150, 160, 1)]
    ):
        export.kernel(start, end, correlation, stream=stream)
    acc = account_of(export.write(tmp_path / "t.sqlite"))
    assert acc.devices["busy_ns"].tolist() == [140]
    assert acc.gaps[["start_ns", "end_ns"]].to_numpy().tolist() == [[130, 150]]


def test_a_gap_is_split_at_the_borders_between_its_causes(tmp_path: Path) -> None:
    export = Export()
    export.domain("harness")
    export.range("iter", 0, 1000)
    export.call(10, 20, 1)
    export.kernel(30, 100, 1)
    export.call(90, 110, 2, name="cudaStreamSynchronize_v3020")
    export.call(120, 140, 3, name="cudaMalloc_v3020")
    export.call(150, 160, 4)
    export.kernel(170, 300, 4)
    export.call(180, 190, 5)
    export.kernel(310, 400, 5)  # launched in time
    export.call(350, 360, 6, name="cudaGraphLaunch_v10000")
    export.kernel(410, 420, 6, node=1)
    export.kernel(425, 500, 6, node=2)
    export.kernel(550, 600, 7)  # no call
    acc = account_of(export.write(tmp_path / "t.sqlite"))
    parts = acc.segments(acc.gaps.index.to_numpy())
    found = list(zip(parts["gap"], parts["cause"], parts["dur_ns"], strict=True))
    assert found == [
        (0, "host", 10), (0, "launch", 20),
        (1, "sync", 10), (1, "host", 10), (1, "api", 20), (1, "host", 10), (1, "launch", 20),
        (2, "dispatch", 10), (3, "dispatch", 10), (4, "graph", 5), (5, "unknown", 50), (6, "unknown", 400),
    ]  # fmt: skip
    assert acc.gaps["cause"].tolist()[:2] == ["launch", "host"]  # of equal parts the first in order
    assert acc.gaps["api"].tolist()[3:5] == ["cudaGraphLaunch"] * 2


def test_work_belongs_to_the_range_that_launched_it(tmp_path: Path) -> None:
    """The kernel runs while the next phase is open on the host."""
    export = Export()
    export.domain("harness")
    export.range("encode", 0, 50)
    export.range("decode", 50, 300)
    export.range("decode.step", 60, 200)
    export.call(40, 45, 1)
    export.kernel(100, 150, 1)
    export.call(70, 75, 2)
    export.kernel(170, 180, 2)
    export.call(220, 225, 3)  # between the steps of the decode phase
    export.kernel(230, 235, 3)
    acc = account_of(export.write(tmp_path / "t.sqlite"))
    phases = acc.phases.set_index("name")
    assert phases["busy_ns"].to_dict() == {"encode": 50, "decode": 15, "decode.step": 10}
    assert phases["idle_ns"].to_dict() == {"encode": 0, "decode": 70, "decode.step": 20}
    assert acc.gaps["phase"].tolist() == ["decode.step", "decode"]


def test_a_library_range_does_not_hide_the_phase(tmp_path: Path) -> None:
    export = Export()
    export.domain("harness", 1)
    export.domain("CCCL", 2)
    export.range("decode.step", 0, 100)
    export.range("sort", 20, 60, domain=2)
    export.call(5, 6, 1)
    export.kernel(10, 12, 1)
    export.call(30, 31, 2)
    export.kernel(40, 42, 2)
    acc = account_of(export.write(tmp_path / "t.sqlite"))
    assert acc.gaps["phase"].tolist() == ["decode.step"]
    assert acc.phases.set_index("name")["kernels"].to_dict() == {"decode.step": 2, "sort": 1}


def test_a_phase_nested_in_itself_counts_once(tmp_path: Path) -> None:
    export = Export()
    export.range("retry", 0, 100)
    export.range("retry", 10, 60)
    for correlation, at in enumerate([20, 40]):
        export.call(at, at + 1, correlation)
        export.kernel(at + 2, at + 7, correlation)
    (retry,) = account_of(export.write(tmp_path / "t.sqlite")).phases.to_dict("records")
    assert (retry["count"], retry["wall_ns"], retry["kernels"], retry["idle_ns"]) == (2, 100, 2, 15)


def test_correlation_ids_repeat_across_processes(tmp_path: Path) -> None:
    export = Export()
    for pid, phase, vm in ((1, "encode", 1), (2, "decode", 0xFFF0)):  # the second has a negative globalTid
        export.domain("harness", pid=pid, vm=vm)
        export.range(phase, 0, 100, pid=pid, vm=vm)
        export.call(10 * pid, 10 * pid + 2, 1, pid=pid, vm=vm)
        export.kernel(100 * pid, 100 * pid + 7 * pid, 1, pid=pid, vm=vm)
    acc = account_of(export.write(tmp_path / "t.sqlite"))
    assert acc.phases.set_index("name")["busy_ns"].to_dict() == {"encode": 7, "decode": 14}


def test_threads_have_ranges_of_their_own(tmp_path: Path) -> None:
    export = Export()
    export.domain("harness")
    export.range("encode", 0, 100, thread=1)
    export.range("decode", 0, 100, thread=2)
    export.call(10, 12, 1, thread=2)
    export.kernel(20, 25, 1)
    acc = account_of(export.write(tmp_path / "t.sqlite"))
    assert acc.phases.set_index("name")["kernels"].to_dict() == {"encode": 0, "decode": 1}


def test_a_graph_traced_as_a_whole_is_busy_time(tmp_path: Path) -> None:
    export = Export()
    export.call(0, 5, 1, name="cudaGraphLaunch_v10000")
    export.graph(10, 500, 1)
    export.call(6, 9, 2)
    export.kernel(510, 520, 2)
    acc = account_of(export.write(tmp_path / "t.sqlite"))
    assert acc.devices["busy_ns"].tolist() == [500]
    assert acc.devices["kernels"].tolist() == [2]
    assert acc.warnings == ["no NVTX ranges in the trace: no phases (record with --trace=cuda,nvtx, "
                            "and annotate the program)"]  # fmt: skip


def test_work_across_the_ends_of_the_window_is_cut(tmp_path: Path) -> None:
    export = Export()
    export.domain("harness")
    export.range("iter", 100, 200)
    for correlation, (start, end) in enumerate([(50, 60), (90, 110), (190, 250), (300, 310)]):
        export.kernel(start, end, correlation)
    acc = account_of(export.write(tmp_path / "t.sqlite"))
    assert acc.devices[["window_ns", "busy_ns", "idle_ns"]].to_numpy().tolist() == [[100, 20, 80]]


def test_missing_launch_calls_are_said(tmp_path: Path) -> None:
    export = Export()
    export.kernel(0, 10, 1)
    export.kernel(20, 30, 2)
    acc = account_of(export.write(tmp_path / "t.sqlite"))
    assert acc.gaps["cause"].tolist() == ["unknown"]
    assert any("2 of 2 pieces of work have no launch call" in warning for warning in acc.warnings)


@pytest.mark.parametrize("name", ["h200_eager_2025.3", "h200_eager_2023.4", "h200_sdpa", "h200_graph"])
def test_busy_time_of_real_exports_equals_a_window_function_in_sql(
    name: str, recorded: Callable[[str], Path], tmp_path: Path
) -> None:
    """An independent computation, by SQLite itself, over the export's own tables."""
    import lzma

    plain = tmp_path / "plain.sqlite"
    plain.write_bytes(lzma.decompress(recorded(name).read_bytes()))
    database = sqlite3.connect(plain)
    tables = {row[0] for row in database.execute("SELECT name FROM sqlite_master")}
    work = " UNION ALL ".join(
        f'SELECT start, "end" FROM {table}'
        for table in (
            "CUPTI_ACTIVITY_KIND_KERNEL",
            "CUPTI_ACTIVITY_KIND_MEMCPY",
            "CUPTI_ACTIVITY_KIND_MEMSET",
        )
        if table in tables
    )
    acc = account_of(plain)
    low, high = acc.window_ns
    (idle,) = database.execute(f"""
        SELECT sum(max(start - until, 0)) FROM (
            SELECT start, coalesce(max("end") OVER (
                ORDER BY start, "end" ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), {low}) AS until
            FROM (SELECT max(start, {low}) AS start, min("end", {high}) AS "end" FROM ({work})
                  WHERE start < {high} AND "end" > {low}
                  UNION ALL SELECT {high}, {high}))""").fetchone()
    assert acc.devices["idle_ns"].tolist() == [idle]


def test_the_decode_steps_of_the_eager_recording_wait_for_the_host(eager: tuple[Trace, Account]) -> None:
    _, acc = eager
    step = acc.phase("decode.step")
    assert step is not None and step["count"] == 3
    assert step["idle_share"] > 0.9
    assert step[["host_ns", "sync_ns", "api_ns", "launch_ns"]].sum() > 0.99 * step["idle_ns"]
    assert step["host_ns"] > 0.7 * step["idle_ns"]


def test_the_gaps_inside_the_replayed_graph_are_the_graphs(graph: tuple[Trace, Account]) -> None:
    _, acc = graph
    assert acc.gaps["cause"].value_counts()["graph"] == 20 * 15
    assert acc.gaps.loc[acc.gaps["cause"] == "graph", "dur_ns"].max() < 1000
