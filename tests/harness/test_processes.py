"""Children end with their parent, however far away they moved."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from harness import processes
from harness.progress import Bar

PR_SET_CHILD_SUBREAPER = 36  # of linux/prctl.h: orphans become this process's children

# A child that starts a grandchild in another session, as profilers do, prints its number, and goes on.
PARENT_OF_STRAY = """
import subprocess, sys, time
stray = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
print(stray.pid, flush=True)
"""

# A child whose own child is dead and not collected when it ends.
LEAVE_A_ZOMBIE = """
import os
zombie = os.fork() or os._exit(0)
os.waitid(os.P_PID, zombie, os.WEXITED | os.WNOWAIT)
print(zombie)
"""
RUN_WITHOUT_WAITING = """
import sys, time

def sleep(seconds):
    raise AssertionError("there is nothing to wait for")

time.sleep = sleep  # before psutil takes it
from pathlib import Path
from rich.console import Console
from harness import processes
from harness.progress import Bar
code, log = sys.argv[1:]
sys.exit(processes.run([sys.executable, "-c", code], Path(log), Bar(Console(quiet=True), "test")))
"""


class Screen:
    """A bar that keeps the lines it is fed, and raises on one of them if told to."""

    def __init__(self, interrupt_at: str | None = None) -> None:
        self.interrupt_at = interrupt_at
        self.lines: list[str] = []

    def wait_s(self) -> None:
        return None

    def tick(self) -> None: ...

    def feed(self, line: str) -> bool:
        self.lines.append(line.strip())
        if self.lines[-1] == self.interrupt_at:
            raise KeyboardInterrupt
        return False


def test_output_goes_to_the_log_and_progress_to_the_bar(tmp_path: Path) -> None:
    code = """
import sys
from harness.progress import report
print("on stdout", flush=True); report(1, 2, "working"); print("on stderr", file=sys.stderr, end="")
sys.exit(3)
"""
    with Bar(Console(quiet=True), "test") as bar:
        assert processes.run([sys.executable, "-c", code], tmp_path / "log", bar) == 3
        task = bar._progress.tasks[0]
    assert (task.completed, task.total, task.description) == (1, 2, "working")
    assert (tmp_path / "log").read_text() == "on stdout\non stderr"


def test_a_descendant_in_another_session_is_ended(tmp_path: Path) -> None:
    code = PARENT_OF_STRAY + "print('ready', flush=True); time.sleep(60)"
    screen = Screen(interrupt_at="ready")
    with pytest.raises(KeyboardInterrupt):
        processes.run([sys.executable, "-c", code], tmp_path / "log", screen)  # type: ignore[arg-type]
    stray = int(screen.lines[0])
    assert not (psutil.pid_exists(stray) and processes.lives(psutil.Process(stray)))


def test_the_dead_are_not_waited_for(tmp_path: Path) -> None:
    """Process 1 of a container may never collect what a profiler leaves behind. Here that is this process."""
    libc, log = ctypes.CDLL(None), tmp_path / "log"
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1)
    try:
        subprocess.run([sys.executable, "-c", RUN_WITHOUT_WAITING, LEAVE_A_ZOMBIE, log], check=True)
    finally:
        libc.prctl(PR_SET_CHILD_SUBREAPER, 0)
    zombie = int(log.read_text())
    assert os.waitpid(zombie, os.WNOHANG) == (zombie, 0)


def test_a_descendant_that_keeps_the_output_open_is_not_waited_for(tmp_path: Path) -> None:
    screen = Screen()
    status = processes.run([sys.executable, "-c", PARENT_OF_STRAY], tmp_path / "log", screen)  # type: ignore[arg-type]
    stray = psutil.Process(int(screen.lines[0]))
    assert status == 0 and stray.is_running()
    stray.kill()


@pytest.mark.parametrize(
    ("status", "words"),
    [(-signal.SIGKILL, "killed by SIGKILL"), (128 + signal.SIGTERM, "killed by SIGTERM"), (3, "exit code 3")],
)
def test_exits_are_described(status: int, words: str) -> None:
    assert processes.describe_exit(status) == words


def test_a_hangup_that_nohup_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with processes.terminate_like_interrupt():
            signal.raise_signal(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_runs_on_one_gpu_wait_for_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    console = Console(quiet=True)
    order = []
    waiting = threading.Event()
    monkeypatch.setattr(console, "print", lambda *_, **__: waiting.set())

    def second() -> None:
        with processes.alone("gpu-test", console):
            order.append("second")

    with processes.alone("gpu-test", console):
        thread = threading.Thread(target=second)
        thread.start()
        assert waiting.wait(30)
        order.append("first")
    thread.join(30)
    assert order == ["first", "second"]
