"""An nsys that fails in the middle of a run, through `python -m harness`."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Command = Callable[..., "subprocess.CompletedProcess[str]"]

FAKE_WORKLOAD = ("--config-dir", str(Path(__file__).parents[1] / "harness" / "conf"), "+scope=fake_one")
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


def test_capture_nsys_without_nsys_leaves_no_run(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NSYS", "/nowhere/nsys")
    done = command("harness", *FAKE_WORKLOAD, "capture=nsys", cwd=tmp_path)
    assert done.returncode == 4 and "NSYS=/nowhere/nsys" in done.stderr
    assert not list(tmp_path.glob("outputs/*/*/run.json"))
