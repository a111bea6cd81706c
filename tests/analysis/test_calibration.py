"""The analysis finds planted gaps, and the comparison notices where it doesn't."""

from __future__ import annotations

from pathlib import Path

import pytest
from synthetic_export import Export

from benchmarks import calibrate

DATA = Path(__file__).parents[1] / "data"
US = 1000
HEADER = "section,cause,repetition,work,planted_ns\n"


@pytest.fixture
def export() -> Export:
    """Two processes with equal correlation ids. A repetition is a kernel, a synchronisation, the planted
    pause, and the launch that ends it, alone in its range."""
    recording = Export()
    for pid, section, begin in ((1, "host_100us", 0), (2, "host_second_process", 10_000 * US)):
        recording.domain(calibrate.DOMAIN, pid=pid)
        recording.range(section, begin, begin + 4000 * US, pid=pid)
        for number in range(2):
            at, first = begin + (100 + 1000 * number) * US, 10 * number
            recording.call(at, at + 5 * US, first, pid=pid)
            recording.kernel(at + 8 * US, at + 28 * US, first, pid=pid)
            recording.call(at + 6 * US, at + 30 * US, first + 1, name="cudaStreamSynchronize", pid=pid)
            recording.range("host", at + 129 * US, at + 136 * US, pid=pid, payload=number)
            recording.call(at + 130 * US, at + 135 * US, first + 2, pid=pid)
            recording.kernel(at + 137 * US, at + 157 * US, first + 2, pid=pid)
    return recording


def truth(folder: Path, planted_us: float = 100, cause: str = "host", repetitions: int = 2) -> Path:
    rows = [
        f"{section},{cause},{number},0,{planted_us * US:.0f}\n"
        for section in ("host_second_process", "host_100us")
        for number in range(repetitions)
    ]
    path = folder / "truth.csv"
    path.write_text(HEADER + "".join(rows))
    return path


def test_planted_gaps_are_found_in_both_processes(export: Export, tmp_path: Path) -> None:
    calibration, _ = calibrate.calibrate(export.write(tmp_path / "trace.sqlite"), truth(tmp_path))
    assert calibration.passed
    assert calibration.sections["section"].tolist() == ["host_second_process", "host_100us"]
    assert calibration.gaps["idle_ns"].tolist() == [109 * US] * 4, "from one kernel to the next"
    assert calibration.gaps["found_ns"].tolist() == [100 * US] * 4, "from synchronisation to launch"
    assert calibration.sections["error_ns"].tolist() == [0, 0]


@pytest.mark.parametrize(
    "wrong",
    [
        {"planted_us": 97.9},  # 2.1 us from what is found
        {"cause": "api"},
        {"repetitions": 3},  # of which the trace has two
    ],
)
def test_what_the_analysis_gets_wrong_fails(
    export: Export, tmp_path: Path, capsys: pytest.CaptureFixture[str], wrong: dict[str, object]
) -> None:
    trace = export.write(tmp_path / "trace.sqlite")
    planted = truth(tmp_path, **wrong)  # type: ignore[arg-type]
    assert calibrate.main([str(trace), str(planted)]) == calibrate.EXIT_FAILED
    assert capsys.readouterr().out.count("FAILED") == 2


def test_time_under_another_cause_fails_even_if_the_median_is_right(export: Export, tmp_path: Path) -> None:
    for number in range(2, 4):
        at = (100 + 1000 * number) * US
        export.kernel(at + 8 * US, at + 28 * US, 10 * number)
        export.range("host", at + 129 * US, at + 136 * US, payload=number)
        export.call(at + 130 * US, at + 135 * US, 10 * number + 2)
        export.kernel(at + 137 * US, at + 157 * US, 10 * number + 2)
    # In one of four repetitions of the first process the thread was in an allocation.
    at = 3100 * US
    export.call(at + 40 * US, at + 50 * US, 99, name="cudaMalloc")
    path = tmp_path / "truth.csv"
    path.write_text(HEADER + "".join(f"host_100us,host,{n},0,{100 * US}\n" for n in range(4)))
    calibration, _ = calibrate.calibrate(export.write(tmp_path / "trace.sqlite"), path)
    (section,) = calibration.sections.to_dict("records")
    assert section["error_ns"] <= calibrate.MAX_ERROR_NS
    assert section["found_share"] == pytest.approx(0.98, abs=0.001)
    assert not calibration.passed


def test_the_work_of_one_launch_is_told_apart_by_its_order(tmp_path: Path) -> None:
    """Three nodes of a graph, the second 200 us after the first, the third 1 us after the second."""
    export = Export()
    export.domain(calibrate.DOMAIN)
    export.range("graph_callback", 0, 2000 * US)
    export.range("graph", 100 * US, 110 * US, payload=0)
    export.call(101 * US, 109 * US, 1, name="cudaGraphLaunch")
    for node, start in enumerate((120, 340, 361)):
        export.kernel(start * US, (start + 20) * US, 1, node=node)
    # The program's clocks, inside the kernels: longer by the kernels' edges.
    (tmp_path / "truth.csv").write_text(
        f"{HEADER}graph_callback,graph,0,1,201000\ngraph_callback,graph,0,2,2100\n"
    )
    calibration, _ = calibrate.calibrate(export.write(tmp_path / "t.sqlite"), tmp_path / "truth.csv")
    assert calibration.gaps["found_ns"].tolist() == [200 * US, 1 * US]
    assert calibration.sections["found_share"].tolist() == [1.0], "what is no idle time can't be found"
    assert calibration.passed


def test_the_page_names_what_it_is_from(export: Export, tmp_path: Path) -> None:
    trace = export.write(tmp_path / "trace.sqlite")
    page = tmp_path / "page.md"
    assert calibrate.main([str(trace), str(truth(tmp_path)), "--markdown", str(page)]) == 0
    assert "| host_100us | host | 2 | 0.200 | 0.200 | 0.00 | 0.0% | 100.0% | passed |" in page.read_text()
    assert "| all |  | 4 | 0.400 | 0.400 |  |  | 100.0% | 2 of 2 |" in page.read_text()


@pytest.mark.parametrize(
    "text", ["", "a,b\n1,2\n", HEADER, f"{HEADER}h,host,first,0,1\n", HEADER + "h,host,0,0,1\n" * 2]
)
def test_a_truth_that_is_none_is_refused(
    export: Export, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    path = tmp_path / "truth.csv"
    path.write_text(text)
    assert calibrate.main([str(export.write(tmp_path / "trace.sqlite")), str(path)]) == 6
    assert "try: the file that the calibration program wrote" in capsys.readouterr().err


def test_a_trace_of_something_else_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (trace,) = DATA.glob("h200_queue*.sqlite.xz")
    assert calibrate.main([str(trace), str(truth(tmp_path))]) == 6
    assert "benchmarks/calibration.cu" in capsys.readouterr().err


@pytest.mark.parametrize(
    "recording", sorted(DATA.glob("*_calibration_*.sqlite.xz")), ids=lambda path: path.name
)
def test_the_analysis_is_right_on_a_real_gpu(recording: Path) -> None:
    calibration, _ = calibrate.calibrate(
        recording, recording.with_name(recording.name.split(".sqlite")[0] + ".csv")
    )
    failed = calibration.sections[~calibration.sections["passed"]]
    assert failed.empty, failed.to_string()
    assert set(calibration.gaps["cause"]) == {
        "host",
        "sync",
        "api",
        "launch",
        "dependency",
        "graph",
        "dispatch",
    }
