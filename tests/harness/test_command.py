"""`python -m harness`, run for real: what it prints, what it leaves, and how it exits."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from harness.processes import lives
from tests.harness.cli import ROOT, Command, argv, call, env, records


def statuses(cwd: Path) -> dict[str, str]:
    with closing(sqlite3.connect(cwd / "outputs" / "results.db")) as db:
        assert db.execute("pragma integrity_check").fetchone() == ("ok",)
        return dict(db.execute("select id, status from runs"))


def test_help_lists_scopes_and_examples_without_torch(tmp_path: Path) -> None:
    done = call([sys.executable, "-X", "importtime", "-m", "harness", "--help"], tmp_path)
    assert done.returncode == 0
    for scope in (ROOT / "conf" / "scope").glob("*.yaml"):
        assert f"\n  {scope.stem} " in done.stdout
    assert done.stdout.count("  python -m harness ") == 3
    assert not re.search(r"\| +(torch|pandas|matplotlib|numpy)$", done.stderr, re.M)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "words, code",
    [
        (["harness", "+scope=cuda_graphs"], 4),
        (["harness.doctor"], 4),
        (["harness.profile", "--", "true"], 4),
        (["experiments.evaluate"], 4),
        (["analysis", "trace.sqlite"], 2),
    ],
    ids=lambda words: words[0] if isinstance(words, list) else "",
)
def test_a_python_without_the_packages_is_told_where_they_are(
    tmp_path: Path, words: list[str], code: int
) -> None:
    (tmp_path / "trace.sqlite").touch()
    done = call([sys.executable, "-S", "-m", *words], tmp_path)  # -S: without site-packages
    assert done.returncode == code
    assert f"error: {sys.executable} has no " in done.stderr and ".venv/bin/python" in done.stderr


def test_commands_work_from_any_folder(tmp_path: Path) -> None:
    if Path(sys.prefix) != ROOT / ".venv":
        pytest.skip("NOT TESTED: this Python is not the project's environment")
    bare = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    for command in ("harness", "analysis"):
        done = subprocess.run([sys.executable, "-m", command, "--help"], cwd=tmp_path, env=bare, timeout=60)
        assert done.returncode == 0, "set up before this was promised? rm -r .venv and make test"


def test_a_run_never_imports_torch_in_the_parent(
    swept: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    _, done = swept
    assert re.search(r"\| +pandas$", done.stderr, re.M), "imports were recorded"
    assert not re.search(r"\| +torch$", done.stderr, re.M)


def test_a_sweep_leaves_its_runs_and_nothing_else(
    swept: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    cwd, done = swept
    assert done.returncode == 0, done.stderr
    assert [p.name for p in cwd.iterdir()] == ["outputs"]
    assert sorted(p.name for p in (cwd / "outputs").iterdir()) == [
        "fake_one",
        "fake_two",
        "results.db",
        "sweeps",
    ]
    (sweep,) = (cwd / "outputs" / "sweeps").iterdir()
    assert sorted(p.name for p in sweep.iterdir()) == [
        "ladder.png",
        "ladder.svg",
        "multirun.yaml",
        "report.html",
    ]
    assert str(sweep / "ladder.png") in done.stdout and str(sweep / "report.html") in done.stdout
    for page in (cwd / "outputs").rglob("report.html"):
        for link in re.findall(r'href="([^"]+)"', page.read_text()):
            assert (page.parent / link).exists(), f"{page}: {link}"
    for record in records(cwd):
        folder = cwd / "outputs" / record["id"]
        assert {p.name for p in folder.iterdir()} == {
            "config.yaml", "run.json", "measure.json", "log.txt", "plots", "report.txt", "report.html",
        }  # fmt: skip
        assert record["artifacts"] and all(
            (folder / artifact).stat().st_size for artifact in record["artifacts"]
        )
        assert str(folder / "plots" / "latency.png") in done.stdout
        assert record["status"] == "finished"
        assert record["metrics"]["total_ms"] > record["metrics"]["decode_ms"] > 0


def test_a_scope_says_whether_its_tokens_are_those_of_the_other(
    swept: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    cwd, done = swept
    one, two = records(cwd)
    assert two["tokens_match"] == {
        "run": one["id"],
        "identical": True,
        "windows": 1,
        "first_difference": None,
        "positions": 3,
        "agreement": 1.0,
    }
    assert two["metrics"]["token_agreement"] == 1.0
    faster = one["metrics"]["ms_per_token"] / two["metrics"]["ms_per_token"]
    assert two["metrics"]["speedup"] == pytest.approx(faster)
    assert f"identical with {one['id']}" in done.stdout


def test_resume_takes_the_finished_run(harness: Command, tmp_path: Path) -> None:
    assert harness("+scope=fake_one").returncode == 0
    again = harness("+scope=fake_one", "resume=true")
    assert again.returncode == 0
    (record,) = records(tmp_path)
    assert f"resume: {record['id']} is finished" in again.stdout


def test_a_reader_that_goes_away_ends_no_run(tmp_path: Path) -> None:
    with subprocess.Popen(
        argv("+scope=fake_one"), cwd=tmp_path, env=env(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None and parent.stderr is not None
        parent.stdout.close()
        said = parent.stderr.read()
    assert parent.returncode == 0 and not said
    (record,) = records(tmp_path)
    assert record["status"] == "finished"


@pytest.mark.parametrize("mode", [[], ["-m"]])
def test_dry_run_prints_the_commands_and_writes_nothing(
    harness: Command, tmp_path: Path, mode: list[str]
) -> None:
    done = harness(*mode, "+scope=fake_one", "dry_run=true", "capture=kineto")
    assert done.returncode == 0
    folder = re.escape(str(tmp_path / "outputs" / "fake_one"))
    assert re.search(rf"-m harness\.child measure {folder}/\d{{8}}T\d{{6}}Z", done.stdout)
    assert re.search(rf"-m harness\.child trace {folder}/\d{{8}}T\d{{6}}Z", done.stdout)
    assert not list(tmp_path.iterdir())


FAILURES = {
    "missing_model": (3, "no such fake model"),
    "bug": (1, "unexpected RuntimeError: a bug in the workload"),
    "die": (7, "killed by SIGKILL"),
}


@pytest.mark.parametrize("mischief", FAILURES)
def test_a_failed_run_is_kept_and_says_why(harness: Command, tmp_path: Path, mischief: str) -> None:
    code, phrase = FAILURES[mischief]
    done = harness("+scope=fake_one", f"fake.mischief={mischief}")
    assert done.returncode == code
    (record,) = records(tmp_path)
    assert phrase in done.stderr and phrase in record["error"]["message"]
    assert record["status"] == "failed" and statuses(tmp_path) == {record["id"]: "failed"}
    log = tmp_path / "outputs" / record["id"] / "log.txt"
    if mischief == "bug":
        assert str(log) in done.stderr and "Traceback" in log.read_text()


def test_a_failing_job_does_not_stop_a_sweep(harness: Command, tmp_path: Path) -> None:
    done = harness("-m", "+scope=fake_one", "fake.mischief=die,none,bad_input")
    assert done.returncode == 3, "the exit code is that of the last job that failed"
    assert sorted(statuses(tmp_path).values()) == ["failed", "finished"]
    table = done.stdout[done.stdout.index("Sweep") :]
    assert all(f"fake.mischief={one}" in table for one in ("die", "none", "bad_input")), "which job is which"
    assert table.count(" failed: ") == 2 and table.count(" finished ") == 1


def test_a_trace_that_dies_keeps_what_was_measured(harness: Command, tmp_path: Path) -> None:
    done = harness("+scope=fake_one", "fake.mischief=die_traced", "capture=kineto")
    assert done.returncode == 7
    assert "tracing (kineto)" in done.stderr and "SIGKILL" in done.stderr
    (record,) = records(tmp_path)
    assert record["status"] == "failed" and record["metrics"]["ms_per_token"] > 0
    assert statuses(tmp_path) == {record["id"]: "failed"}


def test_a_profiler_that_fails_is_named(
    harness: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "target-linux-x64" / "nsys"
    for program in (broken, tmp_path / "host-linux-x64" / "QdstrmImporter"):
        program.parent.mkdir()
        program.write_text("#!/bin/sh\n[ $1 = --version ] && echo 2025.3.1 || { echo no licence; exit 1; }\n")
        program.chmod(0o755)
    monkeypatch.setenv("NSYS", str(broken))
    done = harness("+scope=fake_one", "capture=nsys")
    assert done.returncode == 4
    assert "tracing (nsys): ended without results (exit code 1)" in done.stderr
    assert "harness.doctor" in done.stderr


def hanging(
    cwd: Path, mischief: str = "hang", *arguments: str
) -> tuple[subprocess.Popen[str], list[psutil.Process]]:
    """A run whose child hangs, and the processes below the command."""
    command = argv("+scope=fake_one", f"fake.mischief={mischief}", *arguments)
    parent = subprocess.Popen(
        command, cwd=cwd, env=env(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not any("hanging" in log.read_text() for log in cwd.glob("outputs/*/*/log.txt")):
        assert parent.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    return parent, psutil.Process(parent.pid).children(recursive=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_ends_the_children_and_marks_the_run(tmp_path: Path, number: signal.Signals) -> None:
    parent, children = hanging(tmp_path)
    interrupt(parent, children, number, tmp_path)


@pytest.mark.nsys
def test_an_interrupt_reaches_the_program_under_nsys(real_nsys: Path, tmp_path: Path) -> None:
    parent, children = hanging(tmp_path, "hang_traced", "capture=nsys")
    assert any("harness.child" in child.cmdline() for child in children)
    interrupt(parent, children, signal.SIGINT, tmp_path)
    (record,) = records(tmp_path)
    assert record["metrics"]["ms_per_token"] > 0, "what was measured is kept"


def interrupt(
    parent: subprocess.Popen[str], children: list[psutil.Process], number: signal.Signals, cwd: Path
) -> None:
    parent.send_signal(number)
    _, stderr = parent.communicate(timeout=60)
    assert parent.returncode == 130
    assert "error: interrupted" in stderr and "Traceback" not in stderr
    assert children and not any(lives(child) for child in children)
    (record,) = records(cwd)
    assert record["status"] == "interrupted" and statuses(cwd) == {record["id"]: "interrupted"}


def kill(parent: subprocess.Popen[str], children: list[psutil.Process]) -> None:
    """Nobody would wait for what the parent leaves behind, and it would disturb the next run."""
    parent.kill()
    parent.communicate()
    deadline_s = time.monotonic() + 10
    while left := [child for child in children if lives(child)]:
        assert time.monotonic() < deadline_s, left
        time.sleep(0.05)


@pytest.mark.nsys
def test_a_killed_harness_takes_nsys_and_its_program_along(real_nsys: Path, tmp_path: Path) -> None:
    kill(*hanging(tmp_path, "hang_traced", "capture=nsys"))


def test_a_killed_harness_leaves_a_run_that_is_marked_failed_later(tmp_path: Path) -> None:
    kill(*hanging(tmp_path))
    (before,) = records(tmp_path)
    assert before["status"] == "running"
    assert call([sys.executable, "-m", "harness.results", "list"], tmp_path).returncode == 0
    (after,) = records(tmp_path)
    assert after["status"] == "failed" and statuses(tmp_path) == {after["id"]: "failed"}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB at tmp_path/outputs."""
    outputs = tmp_path / "outputs"
    outputs.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(outputs)]
    done = subprocess.run(mount, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"NOT TESTED: mounting a tmpfs is not permitted here ({done.stderr.strip()})")
    yield outputs
    subprocess.run(["umount", str(outputs)], check=True)


def test_a_full_disk_leaves_a_readable_database(harness: Command, small_disk: Path, tmp_path: Path) -> None:
    done = harness("+scope=fake_one", "fake.mischief=fill_disk")
    assert done.returncode == 5
    assert "is full" in done.stderr and str(small_disk) in done.stderr
    (record,) = records(tmp_path)
    assert record["status"] == "failed" and statuses(tmp_path) == {record["id"]: "failed"}
    assert not list(small_disk.glob("*/*/trace.*")), "the useless recording has made room"


def test_no_space_from_the_start_leaves_no_run(harness: Command, small_disk: Path, tmp_path: Path) -> None:
    (small_disk / "filler").write_bytes(b"x" * (2 * 1024 * 1024 - 3 * os.sysconf("SC_PAGESIZE")))
    done = harness("+scope=fake_one")
    assert done.returncode == 5 and "cannot write" in done.stderr
    assert not records(tmp_path)


@pytest.mark.parametrize("arguments", [["+scope=fake_one"], ["-m", "+scope=fake_one,fake_two"]])
def test_outputs_that_are_not_writable(harness: Command, tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "outputs").write_text("a file where a folder should be")
    done = harness(*arguments)
    assert done.returncode == 5
    assert "cannot write" in done.stderr and "outputs=" in done.stderr
