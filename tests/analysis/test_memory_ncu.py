"""Nsight Compute's own numbers: read, pooled, put into a trace's, and set beside them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from memory_trace import traced

from analysis import Trace, TraceError, account
from analysis.memory import Memory, agreement, memory, merge, ncu

HEADER = (
    '"ID","Process ID","Process Name","Host Name","Kernel Name","Context","Stream","Block Size","Grid Size",'
    '"Device","CC","gpu__time_duration.sum","dram__bytes_read.sum","dram__bytes_write.sum",'
    '"dram__throughput.avg.pct_of_peak_sustained_elapsed",'
    '"gpu__compute_memory_throughput.avg.pct_of_peak_sustained_elapsed",'
    '"sm__throughput.avg.pct_of_peak_sustained_elapsed",'
    '"smsp__average_warps_issue_stalled_long_scoreboard_per_issue_active.ratio",'
    '"smsp__average_warps_issue_stalled_barrier_per_issue_active.ratio",'
    '"smsp__average_warps_issue_stalled_selected_per_issue_active.ratio"'
)
UNITS = '"","","","","","","","","","","","usecond","Mbyte","Kbyte","%","%","%","inst","inst","inst"'
PLACE = '"7","python","host"'


def ncu_file(path: Path, *rows: str, header: str = HEADER, units: str = UNITS) -> Path:
    path.write_text(
        "\n".join(
            [
                "==PROF== Connected to process 7",
                "hello from it",
                header,
                units,
                *rows,
                "==PROF== Disconnected",
            ]
        )
    )
    return path


def row(number: int, name: str, values: str) -> str:
    return f'"{number}",{PLACE},"{name}","1","7","(128, 1, 1)","(1, 1, 1)","0","9.0",{values}'


STREAM_TWICE = (
    row(0, "void stream(float*)", '"4.0","8.0","1,000.0","62.5","70","15","6.0","2.0","1.0"'),
    row(1, "void stream(float*)", '"2.0","4.0","500.0","65","75","18","6.0","2.0","1.0"'),
)


def test_ncu_rows_are_pooled_over_launches(tmp_path: Path) -> None:
    launches = ncu.read(ncu_file(tmp_path / "ncu.csv", *STREAM_TWICE))
    assert launches["name"].tolist() == ["stream", "stream"]
    assert launches["shape"].tolist() == ["(1,1,1)x(128,1,1)"] * 2
    assert launches["dur_ns"].tolist() == [4_000, 2_000]
    assert launches["write_bytes"].tolist() == [1e6, 5e5]
    (kernel,) = ncu.pooled(launches).to_dict("records")
    assert kernel["launches"] == 2
    assert kernel["dur_ns"] == 3_000
    assert kernel["bytes_per_launch"] == pytest.approx(13.5e6 / 2)
    assert (kernel["least_bytes"], kernel["most_bytes"]) == (4.5e6, 9e6)
    assert kernel["memory_pct"] == pytest.approx((70 * 4 + 75 * 2) / 6)
    assert kernel["stalled_long_scoreboard"] == pytest.approx(0.75)
    assert kernel["stall_reason"] == "long_scoreboard"


@pytest.mark.parametrize(
    ("time", "ns"),
    [("nsecond", 1), ("ns", 1), ("usecond", 1e3), ("us", 1e3), ("msecond", 1e6), ("ms", 1e6), ("second", 1e9),
     ("s", 1e9)],
)  # fmt: skip
@pytest.mark.parametrize(("size", "factor"), [("byte", 1), ("Mbyte", 1e6), ("Gbyte", 1e9), ("Tbyte", 1e12)])
def test_units_of_every_version_are_read(
    time: str, ns: float, size: str, factor: float, tmp_path: Path
) -> None:
    units = UNITS.replace("usecond", time).replace("Mbyte", size)
    first = ncu.read(ncu_file(tmp_path / "ncu.csv", *STREAM_TWICE, units=units)).iloc[0]
    assert (first["dur_ns"], first["read_bytes"]) == (4 * ns, 8 * factor)


def test_a_unit_that_nobody_knows_gives_no_number(tmp_path: Path) -> None:
    units = UNITS.replace("Mbyte", "sector")
    assert ncu.read(ncu_file(tmp_path / "ncu.csv", *STREAM_TWICE, units=units))["read_bytes"].isna().all()


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Memory:
    with Trace.open(traced(tmp_path_factory.mktemp("memory") / "trace.sqlite")) as trace:
        return memory(trace, account(trace))


def test_ncu_values_replace_and_are_marked(measured: Memory, tmp_path: Path) -> None:
    both = merge(measured, ncu.read(ncu_file(tmp_path / "ncu.csv", *STREAM_TWICE)))
    kernels = both.kernels.set_index("name")
    mean_ns = kernels.loc["stream", "total_ns"] / kernels.loc["stream", "count"]
    assert kernels["source"].to_dict() == {"stream": "ncu", "matmul": "metrics", "tiny": "metrics"}
    assert kernels.loc["stream", "dram_gbps"] == pytest.approx(13.5e6 / 2 / mean_ns)
    assert kernels.loc["stream", "dram_high_gbps"] == pytest.approx(9e6 / mean_ns)
    assert kernels.loc["stream", "bytes"] == pytest.approx(13.5e6 / 2 * kernels.loc["stream", "count"])
    assert kernels.loc["stream", "stall_reason"] == "long_scoreboard"
    assert kernels.loc["stream", "samples"] == 2
    assert measured.kernels["source"].eq("metrics").all()  # the original stays as it was


def test_ncu_of_another_program_changes_nothing(measured: Memory, tmp_path: Path) -> None:
    other = row(0, "other()", '"4.0","8.0","1.0","6","7","1","6","2","1"')
    both = merge(measured, ncu.read(ncu_file(tmp_path / "ncu.csv", other)))
    assert both.kernels.equals(measured.kernels)
    assert any("Nsight Compute" in warning for warning in both.warnings)


def test_agreement_sets_both_side_by_side(measured: Memory, tmp_path: Path) -> None:
    table = agreement(measured, ncu.read(ncu_file(tmp_path / "ncu.csv", *STREAM_TWICE)))
    (line,) = table.to_dict("records")
    assert line["dram_pct"] == pytest.approx(80, abs=1.5)
    assert line["megabytes"] == pytest.approx(0.8 * 4000 * line["mean_ns"] / 1e6, rel=0.02)
    assert line["ncu_megabytes"] == pytest.approx(13.5 / 2)
    assert line["ncu_dram_pct"] == pytest.approx((62.5 * 4 + 65 * 2) / 6)
    assert (line["class_by_metrics"], line["class_by_ncu"]) == ("memory-bound", "memory-bound")


def test_ncu_base_units_and_nvtx_columns(tmp_path: Path) -> None:
    header = (
        '"ID","Process ID","thread Domain:Push/Pop_Range:PL_Type:PL_Value:CLR_Type:Color:Msg_Type:Msg",'
        '"Kernel Name","Block Size","Grid Size","dram__bytes_read.avg","dram__bytes_read.sum",'
        '"dram__bytes_write.sum","gpu__time_duration.sum","launch__grid_size"'
    )
    first = '"0","7","7  ""harness:iter:Int64:0"" ","void at::<unnamed>::indexSelectSmallIndex<T1>(int)",'
    values = '"(128, 1, 1)","(6, 1, 1)","1,029.33","4,743,424","0","2,944","6"'
    units = '"","","","","","","byte","byte","byte","ns",""'
    launches = ncu.read(ncu_file(tmp_path / "ncu.csv", first + values, header=header, units=units))
    (launch,) = launches.to_dict("records")
    assert (launch["name"], launch["shape"]) == ("indexSelectSmallIndex", "(6,1,1)x(128,1,1)")
    assert (launch["dur_ns"], launch["read_bytes"], launch["write_bytes"]) == (2_944, 4_743_424, 0)


def test_ncu_metrics_that_are_missing_are_unknown(tmp_path: Path) -> None:
    values = '"4.0","n/a","500.0","n/a","70","15","n/a","n/a","n/a"'
    launches = ncu.read(ncu_file(tmp_path / "ncu.csv", row(0, "stream", values)))
    (kernel,) = ncu.pooled(launches).to_dict("records")
    assert np.isnan(kernel["bytes_per_launch"])
    assert kernel["memory_pct"] == 70
    assert kernel["stall_reason"] is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("==ERROR== ERR_NVGPUCTRPERM - no permission", "ERR_NVGPUCTRPERM"),
        ("time,bytes\n1,2\n", "no table of Nsight Compute"),
        (f"{HEADER}\n{UNITS}\n", "nothing was profiled"),
    ],
)
def test_files_that_are_no_ncu_table_say_so(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "ncu.csv"
    path.write_text(text)
    with pytest.raises(TraceError, match=message):
        ncu.read(path)


def test_a_missing_ncu_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="can't be read"):
        ncu.read(tmp_path / "none.csv")
