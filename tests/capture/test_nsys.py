"""Finding nsys, the exact command line, and finishing what nsys leaves unfinished."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from harness import nsys
from harness.capture import capture_for
from harness.capture.nsys import check_ranges
from harness.errors import ExitCode, UserError

ROOT = Path(__file__).resolve().parents[2]

RECORD = [
    "profile",
    "--trace=cuda,nvtx",
    "--sample=none",
    "--cpuctxsw=none",
    "--cuda-graph-trace=node",
    "--force-overwrite=true",
    "--output",
    "/runs/a/trace",
]
WINDOW = ["--capture-range=cudaProfilerApi", "--capture-range-end=stop"]
CHILD = ["python", "-m", "harness.child", "trace", "/runs/a"]


@pytest.mark.parametrize(("device", "window"), [("cuda", WINDOW), ("cpu", [])])
def test_the_exact_command_line(fake_nsys: Callable[..., Path], device: str, window: list[str]) -> None:
    found = fake_nsys()
    command = capture_for("nsys", device).command(CHILD, Path("/runs/a"), device)
    assert command == [str(found), *RECORD, *window, *CHILD]


def test_a_percent_sign_in_a_path_is_not_expanded_by_nsys() -> None:
    command = nsys.profile_command(Path("nsys"), ["true"], Path("/100%p/trace"), window=False)
    assert "/100%%p/trace" in command


def test_auto_is_nsys_only_where_it_can_finish_its_recordings(fake_nsys: Callable[..., Path]) -> None:
    fake_nsys(importer=None)
    assert capture_for("auto", "cpu").name == "kineto"
    fake_nsys()
    assert capture_for("auto", "cpu").name == "nsys"


def test_installations_are_searched_newest_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NSYS", raising=False)
    monkeypatch.setenv("PATH", "")
    assert nsys.find(tmp_path) is None
    compute = "opt/nvidia/nsight-compute/2025.3.1/host/target-linux-x64/nsys"
    for place in (
        "usr/lib/nsight-systems/bin/nsys",
        compute,
        "opt/nvidia/nsight-systems/2025.9.1/bin/nsys",
        "opt/nvidia/nsight-systems/2025.10.1/bin/nsys",
    ):
        (tmp_path / place).parent.mkdir(parents=True)
        (tmp_path / place).touch(0o755)
        if place == compute:
            assert nsys.find(tmp_path) == tmp_path / compute
    assert nsys.find(tmp_path) == tmp_path / "opt/nvidia/nsight-systems/2025.10.1/bin/nsys"


def test_nsys_variable_that_names_no_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NSYS", "/nowhere/nsys")
    with pytest.raises(UserError, match="NSYS=/nowhere/nsys"):
        capture_for("nsys", "cpu").check("cpu")


def test_no_importer_names_what_is_missing(fake_nsys: Callable[..., Path]) -> None:
    fake_nsys(importer=None)
    with pytest.raises(UserError, match=r"no QdstrmImporter in .*/nsight/host-linux-x64") as caught:
        capture_for("nsys", "cpu").check("cpu")
    assert caught.value.exit_code == ExitCode.MACHINE and "kineto" in caught.value.hint


def test_importer_without_its_library_names_the_package(fake_nsys: Callable[..., Path]) -> None:
    lacks = "error while loading shared libraries: libdw.so.1: cannot open shared object file: No such file"
    fake_nsys(importer=f"echo '{lacks}' >&2; exit 127")
    with pytest.raises(UserError, match=r"libdw\.so\.1") as caught:
        capture_for("nsys", "cpu").check("cpu")
    assert "libdw1" in caught.value.hint


def test_an_unfinished_recording_is_imported_and_removed(
    fake_nsys: Callable[..., Path], tmp_path: Path
) -> None:
    found = fake_nsys(export='touch "$5"', importer='[ "$1" = --version ] || touch "$4"')
    (tmp_path / "trace.qdstrm").touch()
    assert nsys.finish(found, tmp_path / "trace") == tmp_path / "trace.sqlite"
    assert (tmp_path / "trace.nsys-rep").exists() and not (tmp_path / "trace.qdstrm").exists()


def test_a_recording_that_cannot_be_imported_is_kept(fake_nsys: Callable[..., Path], tmp_path: Path) -> None:
    found = fake_nsys(importer='[ "$1" = --version ] || { echo "broken stream" >&2; exit 1; }')
    (tmp_path / "trace.qdstrm").touch()
    with pytest.raises(UserError, match="broken stream"):
        nsys.finish(found, tmp_path / "trace")
    assert (tmp_path / "trace.qdstrm").exists()


def test_progress_bars_are_not_quoted_as_errors(fake_nsys: Callable[..., Path], tmp_path: Path) -> None:
    found = fake_nsys(export=r"printf 'Exporting [1%%]\rExporting [2%%]\rno space left\n'; exit 1")
    (tmp_path / "trace.nsys-rep").touch()
    with pytest.raises(UserError, match=r"could not export the recording: no space left$"):
        nsys.finish(found, tmp_path / "trace")


def test_no_report_at_all(fake_nsys: Callable[..., Path], tmp_path: Path) -> None:
    fake_nsys()
    with pytest.raises(UserError, match="ended without writing a report") as caught:
        capture_for("nsys", "cpu").finish(tmp_path)
    assert caught.value.exit_code == ExitCode.MACHINE


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ([], "empty report"),
        (["NVTX_EVENTS (eventType)"], "empty report"),
        (["NVTX_EVENTS AS SELECT 75 AS eventType UNION SELECT 76"], "none of their ranges"),
        (["NVTX_EVENTS AS SELECT 75 AS eventType UNION SELECT 59"], None),
        (["CUPTI_ACTIVITY_KIND_KERNEL (start)"], None),
    ],
)
def test_exports_without_anything_to_see(tmp_path: Path, tables: list[str], message: str | None) -> None:
    trace = tmp_path / "trace.sqlite"
    with closing(sqlite3.connect(trace)) as database:
        for table in ["META_DATA_EXPORT (name, value)", *tables]:
            database.execute(f"CREATE TABLE {table}")
    if message is None:
        check_ranges(trace, "2022.4.2")
        return
    with pytest.raises(UserError, match=message) as caught:
        check_ranges(trace, "2022.4.2")
    assert caught.value.exit_code == ExitCode.MACHINE


@pytest.mark.nsys
def test_a_real_recording_shows_the_phases(real_nsys: Path, tmp_path: Path) -> None:
    from analysis import Trace

    program = "from harness.phases import *; c = PhaseClock(HostTimer(), NvtxAnnotator())\n"
    program += "with c.phase('iter'):\n  for n in range(3):\n    with c.phase('decode.step', payload=n): pass"
    capture = capture_for("nsys", "cpu")
    line = capture.command([sys.executable, "-c", program], tmp_path, "cpu")
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    with Trace.open(capture.finish(tmp_path)) as trace:
        steps = trace.ranges.query("domain == 'harness' and name == 'decode.step'")
        assert steps["payload"].tolist() == [0, 1, 2]
        assert (trace.ranges["name"] == "iter").sum() == 1
    assert not list(tmp_path.glob("*.qdstrm"))
