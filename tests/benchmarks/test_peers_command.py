"""The command of the comparison with peers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.peers import __main__ as command
from benchmarks.peers import book, contest, table
from benchmarks.peers.contenders import OPENAI_WHISPER, REFERENCE, Contender, Task
from harness import environment
from harness.environment import PROJECT
from harness.errors import ExitCode
from tests.benchmarks.test_peers import STAMP, answer

FEW = ["--device", "cpu", "--model", "tiny_random", "--tokens", "4", "--batch", "1", "--iterations", "2"]


def call(*arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    env = os.environ | ({"PYTHONPATH": path} if path else {})
    command = [sys.executable, "-m", "benchmarks.peers", *arguments]
    done = subprocess.run(command, cwd=PROJECT, env=env, capture_output=True, text=True, timeout=300)
    assert "Traceback" not in done.stdout + done.stderr
    return done


def test_misuse_is_one_message() -> None:
    wrong = call("--device", "cpu", "--model", "tiny_random", "--tokens", "5000")
    assert wrong.returncode == ExitCode.USAGE and "2 to 444" in wrong.stderr
    assert "above 0" in call(*FEW, "--patience", "nan").stderr
    nowhere = call(*FEW, "--into", "/proc/none/bench.json")
    assert nowhere.returncode == ExitCode.STORAGE and "bench.json can't be written" in nowhere.stderr
    empty = call("table", "--from", "nowhere.json")
    assert empty.returncode == ExitCode.USAGE and empty.stderr.startswith("error: nowhere.json has no rows")


def test_who_reads_how_to_install_a_peer_gets_the_version_that_is_tested() -> None:
    assert f"pip install {OPENAI_WHISPER}" in (PROJECT / "README.md").read_text()
    assert f"pip install {OPENAI_WHISPER}" in call("--help").stdout


def test_a_call_that_was_cut_short_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    called: list[tuple[str, int]] = []
    broken = {"flash"}

    def fake(contender: Contender, task: Task, _: float) -> dict[str, Any]:
        called.append((contender.name, task.batch))
        return answer(task.batch, **({"failed": "no luck"} if contender.name in broken else {}))

    monkeypatch.setattr(contest, "call", fake)
    monkeypatch.setattr(environment, "stamp", lambda device: STAMP)
    into = tmp_path / "new" / "bench.json"
    again = [*FEW, "--batch", "1", "2", "1", "--only", REFERENCE, "flash", "--into", str(into)]
    assert command.main(again) == ExitCode.CHILD
    assert called == [(REFERENCE, 1), ("flash", 1), (REFERENCE, 2), ("flash", 2)]
    called.clear()
    broken.clear()
    assert command.main([*again, "--resume"]) == ExitCode.OK
    assert called == [("flash", 1), ("flash", 2)] and "measured before: 2 of 4" in capsys.readouterr().out
    broken.add("flash")
    assert command.main(again) == ExitCode.CHILD
    assert (
        "FAILED: no luck" in (said := capsys.readouterr().out) and "earlier row, with times, is kept" in said
    )
    assert all(map(book.measured, book.load(into)))


@pytest.mark.parametrize("status", [0, 7])
@pytest.mark.parametrize("published", [True, False])
def test_make_bench_ends_as_the_measurement_does(tmp_path: Path, status: int, published: bool) -> None:
    """In a folder of its own, with an interpreter that only says what it was asked for."""
    if not (make := shutil.which("make")):
        pytest.skip("NOT TESTED without make")
    shutil.copy(PROJECT / "Makefile", tmp_path)
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\necho "$@"\ncase "$*" in *table*) exit 1; esac\nexit {status}\n')
    python.chmod(0o755)
    (tmp_path / "requirements.lock").touch()
    (tmp_path / ".venv" / ".ready").touch()
    if published:
        (tmp_path / "results").mkdir()
        (tmp_path / "results" / "bench.json").touch()
    # Without what the make that runs these tests tells those below it.
    env = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    command = [make, "bench", "ARGS=--resume"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    table = ["-m benchmarks.peers table --update README.md"] if published else []
    assert done.stdout.splitlines()[:2] == ["-m benchmarks.peers --resume", *table]
    assert done.returncode == (2 if status else 0), "make's own code for a target that failed"


@pytest.mark.slow
def test_the_command_measures_compares_and_fills_a_readme(tmp_path: Path) -> None:
    """openai-whisper is hidden behind a package of its name that isn't it."""
    (tmp_path / "whisper").mkdir()
    (tmp_path / "whisper" / "__init__.py").touch()
    into, readme = tmp_path / "bench.json", tmp_path / "README.md"
    only = ["--only", REFERENCE, "openai_whisper"]
    done = call(*FEW, *only, "--warmup", "1", "--into", str(into), path=str(tmp_path))
    assert done.returncode == ExitCode.OK, done.stdout + done.stderr
    readme.write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n")
    assert call("table", "--from", str(into), "--update", str(readme)).returncode == ExitCode.OK
    text = readme.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert "1.0× | reference |" in text and "pip install openai-whisper==20250625" in text
