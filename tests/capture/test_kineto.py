"""torch.profiler's chrome trace, read back as an nsys export."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from analysis import Trace, account
from harness.capture import capture_for
from harness.capture.chrome import convert, read_chrome_trace, short_name, write_sqlite
from harness.errors import ExitCode, UserError
from harness.phases import DECODE_STEP, ITER, HostTimer, PhaseClock

PID, TID = 4242, 4243
GLOBAL_PID = (1 << 48) + (PID << 24)
GEMM = "void cutlass::(anonymous namespace)::gemm<float, 4>(float const*, int)"


def host(cat: str, name: str, ts: float, dur: float, correlation: int | None = None) -> dict[str, Any]:
    args = {} if correlation is None else {"cbid": 211, "correlation": correlation}
    return {"ph": "X", "cat": cat, "name": name, "pid": PID, "tid": TID, "ts": ts, "dur": dur, "args": args}


def device(cat: str, name: str, ts: float, dur: float, correlation: int, **more: Any) -> dict[str, Any]:
    args = {"device": 0, "context": 1, "stream": 7, "correlation": correlation, **more}
    return {"ph": "X", "cat": cat, "name": name, "pid": 0, "tid": 7, "ts": ts, "dur": dur, "args": args}


# One iteration on a GPU: a copy, a kernel, and a graph of two nodes launched once.
GPU_TRACE = {
    "schemaVersion": 1,
    "deviceProperties": [
        {"id": 0, "name": "NVIDIA H200", "totalGlobalMem": 150109880320, "numSms": 132, "computeMajor": 9}
    ],
    "cuda_driver_version": 13000,
    "host_name": "vm",
    "baseTimeNanoseconds": 1790857026000000000,
    "traceEvents": [
        {"ph": "M", "name": "process_name", "ts": 4504626403000.0, "pid": PID, "tid": 0, "args": {}},
        host("user_annotation", "harness:iter", 4504626403000.001, 100.0),
        host("user_annotation", "harness:encode", 4504626403001.0, 30.5),
        host("user_annotation", "ProfilerStep#1", 4504626403000.5, 99.0),
        host("cpu_op", "aten::mm", 4504626403001.0, 20.0),
        host("cuda_runtime", "cudaMemcpyAsync", 4504626403002.0, 4.0, 1),
        device("gpu_memcpy", "Memcpy HtoD (Pageable -> Device)", 4504626403010.0, 2.125, 1, bytes=480000),
        host("cuda_runtime", "cudaLaunchKernel", 4504626403020.0, 5.0, 2),
        device(
            "kernel", GEMM, 4504626403030.123, 3.456, 2,
            grid=[36, 2, 1], block=[128, 1, 1], **{"registers per thread": 90},
        ),
        host("cuda_runtime", "cudaGraphLaunch", 4504626403040.0, 5.0, 3),
        device("kernel", "a_node", 4504626403050.0, 2.0, 3, **{"graph node id": 21474836481}),
        device("kernel", "b_node", 4504626403052.256, 2.0, 3, **{"graph node id": 21474836482}),
        host("cuda_driver", "cuLaunchKernel", 4504626403060.0, 5.0, 4),
        device("gpu_memset", "Memset (Device)", 4504626403070.0, 1.0, 5, bytes=4),
        device("gpu_user_annotation", "harness:encode", 4504626403010.0, 30.0, 0),
        {"ph": "X", "cat": "Trace", "name": "PyTorch Profiler (0)", "pid": "Spans", "tid": "PyTorch Profiler",
         "ts": 4504626403000.5, "dur": 99.0, "args": {"Op count": 0}},
    ],
}  # fmt: skip


@pytest.fixture
def export(tmp_path: Path) -> Path:
    (tmp_path / "trace.json").write_text(json.dumps(GPU_TRACE))
    return write_sqlite(
        convert(read_chrome_trace(tmp_path / "trace.json"), "2.13.0"), tmp_path / "trace.sqlite"
    )


def rows(export: Path, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(export)) as database:
        return database.execute(query).fetchall()


def test_times_are_exact_nanoseconds_from_the_first_event(export: Path) -> None:
    assert rows(export, 'SELECT start, "end" FROM CUPTI_ACTIVITY_KIND_KERNEL WHERE correlationId = 2') == [
        (30_122, 33_578)
    ]
    assert rows(export, "SELECT utcEpochNs FROM TARGET_INFO_SESSION_START_TIME") == [
        (1790857026000000000 + 4504626403000001,)
    ]


def test_kernels_copies_and_memsets_have_the_columns_of_nsys(export: Path) -> None:
    kernel = """
        SELECT deviceId, contextId, streamId, globalPid, registersPerThread, gridX, gridY, gridZ, blockX,
               graphNodeId, d.value, s.value
        FROM CUPTI_ACTIVITY_KIND_KERNEL
        JOIN StringIds d ON d.id = demangledName
        JOIN StringIds s ON s.id = shortName
        WHERE correlationId = 2"""
    assert rows(export, kernel) == [(0, 1, 7, GLOBAL_PID, 90, 36, 2, 1, 128, None, GEMM, "gemm")]
    memcpy = "SELECT bytes, copyKind, srcKind, dstKind, correlationId FROM CUPTI_ACTIVITY_KIND_MEMCPY"
    assert rows(export, memcpy) == [(480000, 1, 0, 2, 1)]
    assert rows(export, "SELECT bytes, memKind FROM CUPTI_ACTIVITY_KIND_MEMSET") == [(4, 2)]


def test_nodes_of_a_graph_share_the_launch_and_keep_their_ids(export: Path) -> None:
    nodes = "SELECT correlationId, graphNodeId FROM CUPTI_ACTIVITY_KIND_KERNEL WHERE graphNodeId NOTNULL"
    assert rows(export, nodes) == [(3, 21474836481), (3, 21474836482)]
    calls = (
        "SELECT value, eventClass, globalTid FROM CUPTI_ACTIVITY_KIND_RUNTIME JOIN StringIds ON id = nameId"
    )
    assert rows(export, calls)[2:] == [
        ("cudaGraphLaunch", 0, GLOBAL_PID + TID),
        ("cuLaunchKernel", 1, GLOBAL_PID + TID),
    ]


def test_says_who_recorded_it_and_on_what(export: Path) -> None:
    product = rows(export, "SELECT value FROM META_DATA_EXPORT WHERE name = 'EXPORT_PRODUCT_NAME'")
    assert product == [("kineto (torch.profiler of torch 2.13.0)",)]
    assert rows(export, "SELECT id, name, smCount FROM TARGET_INFO_GPU") == [(0, "NVIDIA H200", 132)]


def test_the_analysis_reads_it_like_any_nsys_export(export: Path) -> None:
    with Trace.open(export) as trace:
        domains = trace.ranges.set_index("name")["domain"].astype(str).to_dict()
        assert domains == {"iter": "harness", "encode": "harness", "ProfilerStep#1": ""}
        assert trace.work["name"].tolist() == ["[memcpy HtoD]", GEMM, "a_node", "b_node", "[memset]"]
        assert trace.info.gpus[0].name == "NVIDIA H200"
        acc = account(trace)
    assert acc.gaps.set_index("after")["cause"].astype(str)["b_node"] == "graph"
    phases = acc.phases.set_index("name")
    assert phases.loc["encode", "kernels"] == 1  # the launch of `gemm` is in it, the graph's is not


def test_a_trace_without_gpu_work_has_no_cuda_tables(tmp_path: Path) -> None:
    tables = convert({"traceEvents": [host("user_annotation", "harness:iter", 1.5, 2.0)]}, "2.13.0")
    assert not [name for name in tables if name.startswith("CUPTI")]


def test_a_real_cpu_profile_shows_the_phases(tmp_path: Path) -> None:
    import torch

    capture = capture_for("kineto", "cpu")
    capture.check("cpu")
    assert capture.command(["python", "child"], tmp_path, "cpu") == ["python", "child"]
    clock = PhaseClock(HostTimer(), capture.annotator())
    with capture.window("cpu", tmp_path), clock.phase(ITER):
        for step in range(3):
            with clock.phase(DECODE_STEP, payload=step):
                torch.ones(64) @ torch.ones(64)
    with Trace.open(capture.finish(tmp_path)) as trace:
        ranges = trace.ranges[trace.ranges["domain"] == "harness"]
        assert ranges["name"].tolist() == [ITER, DECODE_STEP, DECODE_STEP, DECODE_STEP]
        assert ranges["depth"].tolist() == [0, 1, 1, 1]
        assert trace.work.empty
    iter_ns = clock.take()[ITER][0]
    measured = ranges.loc[ranges["name"] == ITER]
    # Of the same size: in another unit it would be a thousand times as long or short.
    assert iter_ns / 100 < int((measured["end_ns"] - measured["start_ns"]).iloc[0]) < 100 * iter_ns
    assert not (tmp_path / "trace.json").exists()


@pytest.mark.parametrize("content", ["", "[1, 2]", '{"traceEvents": 3}', '{"traceEvents": [{"ph": "X", "ca'])
def test_a_damaged_trace_is_reported(tmp_path: Path, content: str) -> None:
    (tmp_path / "trace.json").write_text(content)
    with pytest.raises(UserError, match=r"can't be read: .*trace\.json") as caught:
        capture_for("kineto", "cpu").finish(tmp_path)
    assert caught.value.exit_code == ExitCode.TRACE


def test_a_child_that_wrote_no_trace(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="wrote no trace"):
        capture_for("kineto", "cpu").finish(tmp_path)


@pytest.mark.parametrize(
    ("demangled", "short"),
    [
        ("void at::native::vectorized_elementwise_kernel<4, F>(int, F)", "vectorized_elementwise_kernel"),
        ("void pytorch_flash::flash_fwd_kernel<Traits<64>>(Params)", "flash_fwd_kernel"),
        ("triton_poi_fused_add_0", "triton_poi_fused_add_0"),
        ("", ""),
    ],
)
def test_short_names(demangled: str, short: str) -> None:
    assert short_name(demangled) == short
