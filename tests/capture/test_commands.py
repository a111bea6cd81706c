"""harness.profile, harness.doctor and nsys-run.sh through the real commands."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from harness import doctor, environment, nsys

Command = Callable[..., subprocess.CompletedProcess[str]]
FakeNsys = Callable[..., Path]

ROOT = Path(__file__).resolve().parents[2]

CHECKS = {
    "GPU",
    "driver",
    "python",
    "torch",
    "nvcc",
    "nsys",
    "ncu",
    "GPU metrics",
    "perf events",
    "disk space",
}


def profile(command: Command, tmp_path: Path, *program: str) -> subprocess.CompletedProcess[str]:
    line = ("harness.profile", "--outputs", str(tmp_path / "out"), "--", *program)
    done = command(*line)
    return command(*line) if nsys.UNREACHABLE in done.stderr else done


def empty_export(*tables: str) -> str:
    """Shell commands of an `nsys export` that writes these tables only."""
    sql = "; ".join(f"CREATE TABLE {table}" for table in ("META_DATA_EXPORT (name, value)", *tables))
    program = f"import sqlite3, sys; sqlite3.connect(sys.argv[1]).executescript('{sql}')"
    return f'{sys.executable} -c "{program}" "$5"'


@pytest.fixture
def without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Importing torch takes seconds; these tests of the doctor are about something else."""
    monkeypatch.setattr(doctor, "_torch", lambda: doctor.Check("torch", doctor.OK, "not asked"))


@pytest.mark.nsys
def test_a_program_without_gpu_work_is_recorded_and_said_so(
    real_nsys: Path, command: Command, tmp_path: Path
) -> None:
    done = profile(command, tmp_path, sys.executable, "-c", "print('said by the program')")
    assert done.returncode == 0, done.stderr
    said, trace, note = done.stdout.splitlines()
    assert said == "said by the program" and "no GPU work" in note
    assert Path(trace.removeprefix("trace: ")).exists()


@pytest.mark.nsys
def test_the_programs_exit_code_is_passed_on(real_nsys: Path, command: Command, tmp_path: Path) -> None:
    done = profile(command, tmp_path, sys.executable, "-c", "raise SystemExit(9)")
    assert done.returncode == 9
    assert "exit code 9" in done.stderr
    assert list(tmp_path.glob("out/profile/*/trace.sqlite"))


def test_no_such_program(command: Command, tmp_path: Path) -> None:
    done = profile(command, tmp_path, "no-such-program", "--option")
    assert done.returncode == 2
    assert "no-such-program is not a program" in done.stderr
    assert not (tmp_path / "out").exists()


def test_no_program(command: Command) -> None:
    done = command("harness.profile")
    assert done.returncode == 2 and "--" in done.stderr


def test_no_nsys(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NSYS", "/nowhere/nsys")
    done = profile(command, tmp_path, "true")
    assert done.returncode == 4
    assert "NSYS=/nowhere/nsys" in done.stderr and "try:" in done.stderr


@pytest.mark.parametrize("wrong", ["echo 'no permission' >&2; exit 1", "true"])
def test_nsys_that_fails_or_writes_nothing(
    fake_nsys: FakeNsys, command: Command, tmp_path: Path, wrong: str
) -> None:
    fake_nsys(profile=wrong)
    done = profile(command, tmp_path, "true")
    assert done.returncode == 4
    assert "ended without writing a report" in done.stderr


def test_outputs_that_cannot_be_written(fake_nsys: FakeNsys, command: Command, tmp_path: Path) -> None:
    fake_nsys()
    (tmp_path / "out").write_text("a file where a folder should be")
    done = profile(command, tmp_path, "true")
    assert done.returncode == 5 and "cannot write" in done.stderr


def test_an_export_that_is_no_database(fake_nsys: FakeNsys, command: Command, tmp_path: Path) -> None:
    fake_nsys(profile='touch "$stem.nsys-rep"', export='echo nonsense > "$5"')
    assert profile(command, tmp_path, "true").returncode == 6


def test_ctrl_c_ends_nsys_and_the_program(fake_nsys: FakeNsys, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    fake_nsys(profile=f'sleep 60 & echo $! > "{ready}.part"; mv "{ready}.part" "{ready}"; wait')
    line = [sys.executable, "-m", "harness.profile", "--outputs", str(tmp_path), "--", "true"]
    running = subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not ready.exists() and running.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    sleeper = int(ready.read_text())
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "interrupted" in err and "Traceback" not in out + err
    assert not psutil.pid_exists(sleeper) or psutil.Process(sleeper).status() == psutil.STATUS_ZOMBIE


def test_doctor_reports_every_check(command: Command) -> None:
    done = command("harness.doctor", "--json")
    report = json.loads(done.stdout)
    assert {check["name"] for check in report["checks"]} == CHECKS
    assert {check["status"] for check in report["checks"]} <= {"ok", "warn", "missing"}
    assert all(check["advice"] for check in report["checks"] if check["status"] == "missing")
    assert (done.returncode == 0) == report["usable"]


def test_doctor_is_interrupted_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(doctor, "_gpu", interrupted)
    assert doctor.main([]) == 130
    assert capsys.readouterr().err == "interrupted\n"


@pytest.mark.parametrize(
    ("export", "found"),
    [
        (empty_export(), "empty report"),
        (empty_export("NVTX_EVENTS AS SELECT 75 AS eventType"), "none of their ranges"),
    ],
)
def test_doctor_does_not_believe_an_nsys_that_records_nothing(
    fake_nsys: FakeNsys, without_torch: None, export: str, found: str
) -> None:
    fake_nsys(profile='touch "$stem.nsys-rep"', export=export)
    (check,) = [check for check in doctor.examine() if check.name == "nsys"]
    assert check.status == "missing" and found in check.found and check.advice


@pytest.mark.nsys
def test_doctor_tries_a_real_nsys(real_nsys: Path, without_torch: None) -> None:
    (check,) = [check for check in doctor.examine() if check.name == "nsys"]
    assert check.status == "ok" and "recorded 1 of 1 range" in check.found


def test_doctor_survives_whatever_a_check_raises(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> doctor.Check:
        raise RuntimeError("the driver is out")

    for name in ("_gpu", "_nsys", "_torch"):
        monkeypatch.setattr(doctor, name, broken)
    assert doctor.main(["--json"]) == 0
    checks = json.loads(capsys.readouterr().out)["checks"]
    assert sum("the driver is out" in check["found"] for check in checks) == 3


def test_doctor_says_when_nothing_can_run(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = doctor.Check("torch", doctor.MISSING, "No module named 'torch'", "make run")
    monkeypatch.setattr(doctor, "examine", lambda: [missing])
    assert doctor.main([]) == 4


def test_nsys_run_is_clean_and_explains_itself() -> None:
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", ROOT / "nsys-run.sh"], check=True)
    for arguments in ([], ["--help"]):
        done = subprocess.run([ROOT / "nsys-run.sh", *arguments], capture_output=True, text=True)
        assert done.returncode == 0 and "+scope=cuda_graphs" in done.stdout and "-- python" in done.stdout


def test_nsys_run_knows_a_program_without_its_dashes() -> None:
    line = [ROOT / "nsys-run.sh", "python3", "prog.py"]
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.returncode == 2 and "try: ./nsys-run.sh -- python3 prog.py" in done.stderr


def test_nsys_run_takes_no_other_capture() -> None:
    line = [ROOT / "nsys-run.sh", "+scope=baseline", "capture=none"]
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.returncode == 2 and "error: capture=none: nsys-run.sh records by nsys" in done.stderr


@pytest.mark.skipif(environment.gpu() is not None, reason="NOT TESTED: this machine has a GPU")
def test_calibration_asks_for_a_gpu_before_anything_else(command: Command, tmp_path: Path) -> None:
    done = command("benchmarks.record_calibration", "--outputs", str(tmp_path / "out"))
    assert done.returncode == 4 and "the calibration is about a GPU" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("given", "becomes"),
    [
        ("+scope=baseline model=tiny_random", "harness +scope=baseline model=tiny_random capture=nsys"),
        ("-m +scope=baseline,flash", "harness -m +scope=baseline,flash capture=nsys"),
        ("--graphs graph -- prog -m x=1", "harness.profile --cwd {here} --graphs graph -- prog -m x=1"),
        ("--gpu-metrics auto", "harness.profile --cwd {here} --gpu-metrics auto"),
    ],
)
def test_nsys_run_insists_on_nsys_for_scopes_and_hands_programs_on(
    given: str, becomes: str, tmp_path: Path
) -> None:
    """In a folder of its own, whose Python says what it is asked for, and ends with 7."""
    project, here = tmp_path / "project", tmp_path / "here"
    (project / ".venv/bin").mkdir(parents=True)
    here.mkdir()
    shutil.copy(ROOT / "nsys-run.sh", project)
    (project / ".venv/bin/python").write_text('#!/bin/sh\necho "$@"\necho "$PYTHONPATH"\nexit 7\n')
    (project / ".venv/bin/python").chmod(0o755)
    line, environment = [project / "nsys-run.sh", *given.split()], os.environ | {"PYTHONPATH": "mine"}
    done = subprocess.run(line, cwd=here, env=environment, capture_output=True, text=True)
    assert done.returncode == 7 and not done.stderr
    path = "mine" if "profile" in becomes else f"{project}:mine"
    assert done.stdout.splitlines() == [f"-m {becomes.format(here=here)}", path]


@pytest.mark.nsys
def test_nsys_run_profiles_where_the_user_is(real_nsys: Path, tmp_path: Path) -> None:
    """In a copy of the project, since what it records goes to the project's outputs/."""
    project, elsewhere = tmp_path / "my project", tmp_path / "else where"
    elsewhere.mkdir()
    for room in ("harness", "analysis"):
        shutil.copytree(ROOT / room, project / room, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "nsys-run.sh", project)
    (project / ".venv/bin").mkdir(parents=True)
    (project / ".venv/bin/python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (project / ".venv/bin/python").chmod(0o755)
    show = "import os; print(os.getcwd(), os.environ.get('PYTHONPATH'))"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    line = [project / "nsys-run.sh", "--", sys.executable, "-c", show]
    done = subprocess.run(line, cwd=elsewhere, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == f"{elsewhere} None"
    assert list(project.glob("outputs/profile/*/trace.sqlite"))
    line[1:1] = ["--outputs", "mine"]
    subprocess.run(line, cwd=elsewhere, env=environment, capture_output=True, timeout=120, check=True)
    assert list(elsewhere.glob("mine/profile/*/trace.sqlite"))
