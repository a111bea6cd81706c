"""An nsys that fails in the middle of a run, through `python -m harness`."""

from __future__ import annotations

import json
import lzma
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import nsys

Command = Callable[..., "subprocess.CompletedProcess[str]"]

FAKE_WORKLOAD = ("--config-dir", str(Path(__file__).parents[1] / "harness" / "conf"), "+scope=fake_one")
DATA = Path(__file__).parents[1] / "data"
RUN_CHILD = 'while [ "$1" != --output ]; do shift; done; shift 2; "$@"'
NO_RANGES = "CREATE TABLE NVTX_EVENTS AS SELECT 75 AS eventType"
WRITE = f"import sqlite3, sys; sqlite3.connect(sys.argv[1]).executescript('{NO_RANGES}')"
EXPORT_NO_RANGES = f'{sys.executable} -c "{WRITE}" "$5"'


@pytest.mark.parametrize(
    ("profile", "export", "message"),
    [
        (RUN_CHILD, "true", "ended without writing a report"),
        (f'{RUN_CHILD}; touch "$stem.nsys-rep"', EXPORT_NO_RANGES, "nvtx==0.2.11"),
    ],
)
def test_a_run_without_a_usable_recording_fails_with_a_reason(
    fake_nsys: Callable[..., Path], command: Command, tmp_path: Path, profile: str, export: str, message: str
) -> None:
    fake_nsys(profile=profile, export=export)
    done = command("harness", *FAKE_WORKLOAD, "capture=nsys", "device=cpu", cwd=tmp_path)
    assert done.returncode == 4
    assert message in done.stderr and "try:" in done.stderr
    (found,) = tmp_path.glob("outputs/*/*/run.json")
    record = json.loads(found.read_text())
    assert record["status"] == "failed" and record["error"]["exit_code"] == 4


@pytest.mark.parametrize(("failures", "code", "status"), [(1, 0, "finished"), (2, 4, "failed")])
def test_an_nsys_that_can_not_reach_its_daemon_is_asked_again_once(
    fake_nsys: Callable[..., Path], command: Command, tmp_path: Path, failures: int, code: int, status: str
) -> None:
    asked = tmp_path / "asked"
    unreachable = f"echo '{nsys.UNREACHABLE}.' >&2; exit 1"
    begin = f"echo >> {asked}; if [ $(wc -l < {asked}) -le {failures} ]; then {unreachable}; fi"
    recorded = tmp_path / "recorded.sqlite"
    recorded.write_bytes(lzma.decompress((DATA / "cpu_2023.4.sqlite.xz").read_bytes()))
    fake_nsys(profile=f'{begin}; {RUN_CHILD}; touch "$stem.nsys-rep"', export=f'cp {recorded} "$5"')
    done = command("harness", *FAKE_WORKLOAD, "capture=nsys", "device=cpu", cwd=tmp_path)
    assert done.returncode == code, done.stdout + done.stderr
    assert "note: tracing (nsys): the profiler did not start, and was asked again" in done.stdout
    assert asked.read_text() == "\n\n"
    (found,) = tmp_path.glob("outputs/*/*/run.json")
    assert json.loads(found.read_text())["status"] == status


def test_capture_nsys_without_nsys_leaves_no_run(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NSYS", "/nowhere/nsys")
    done = command("harness", *FAKE_WORKLOAD, "capture=nsys", cwd=tmp_path)
    assert done.returncode == 4 and "NSYS=/nowhere/nsys" in done.stderr
    assert not list(tmp_path.glob("outputs/*/*/run.json"))
