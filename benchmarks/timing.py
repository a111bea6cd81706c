"""How long a command takes and how much memory, as a process of its own, and whether others disturbed it."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from threading import Timer
from typing import Any

import psutil

QUIET_CORES = 0.15  # other processes may use so much of the machine during a run that counts as undisturbed
ONCE_ABOVE_S = 60.0  # a run that takes longer is not repeated
_EXTRA_RUNS = 2  # times as many as asked for, where others disturb
_LOOK_S = 2.0


@dataclass(frozen=True)
class Run:
    """wall_s, cpu_s: of the command with its children. peak_mib: resident, of the largest of these processes.
    others_cores: how many cores all other processes kept busy meanwhile."""

    wall_s: float
    cpu_s: float
    peak_mib: float
    others_cores: float


@dataclass(frozen=True)
class Timing:
    """The least disturbed runs of a command, or why there are none."""

    runs: list[Run] = field(default_factory=list)
    why_not: str = ""

    @property
    def wall_s(self) -> float:
        return median(run.wall_s for run in self.runs)

    @property
    def peak_mib(self) -> float:
        return max(run.peak_mib for run in self.runs)

    def as_json(self) -> dict[str, Any]:
        return {"runs": [asdict(run) for run in self.runs], "why_not": self.why_not}


class Failed(Exception):
    """A command that ended with an error or took too long."""


def measure(command: Sequence[str], repeat: int, patience_s: float, wait_s: float = 0.0) -> Timing:
    """`repeat` runs, for each of which a quiet moment is waited for (`wait_s` at most); those that others
    disturbed all the same are repeated, up to a limit."""
    runs: list[Run] = []
    try:
        while len(runs) < repeat * (1 + _EXTRA_RUNS):
            _wait_until_quiet(wait_s)
            runs.append(run(command, patience_s))
            quiet = sum(one.others_cores <= QUIET_CORES for one in runs)
            if quiet == repeat or runs[-1].wall_s > ONCE_ABOVE_S:
                break
    except Failed as failure:
        return Timing(why_not=str(failure))
    return Timing(sorted(runs, key=lambda one: one.others_cores)[:repeat])


def run(command: Sequence[str], patience_s: float) -> Run:
    """Run it once. Raises Failed.

    The peak of a process counts what its parent held when it was started, so this one has to stay small.
    """
    with tempfile.TemporaryFile() as said:
        busy, begin = _busy_s(), time.perf_counter()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said, start_new_session=True
        )
        timer = Timer(patience_s, os.killpg, (process.pid, signal.SIGKILL))
        timer.start()
        try:
            _, status, used = os.wait4(process.pid, 0)
            wall_s = time.perf_counter() - begin
        except KeyboardInterrupt:  # which the command, in a session of its own, has not heard of
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        finally:
            timer.cancel()
        others_s = _busy_s() - busy - used.ru_utime - used.ru_stime
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            words = said.read().decode(errors="replace").strip().splitlines()
            ended = f"ended with {process.returncode}" + (f" ({words[-1].strip()})" if words else "")
            raise Failed(f"more than {patience_s:,.0f} s" if wall_s >= patience_s else ended)
    cpu_s = used.ru_utime + used.ru_stime
    return Run(wall_s, cpu_s, used.ru_maxrss / 1024, max(others_s, 0.0) / wall_s)


def _wait_until_quiet(at_most_s: float) -> None:
    until = time.monotonic() + at_most_s
    while time.monotonic() < until:
        busy, begin = _busy_s(), time.monotonic()
        time.sleep(_LOOK_S)
        if _busy_s() - busy <= QUIET_CORES * (time.monotonic() - begin):
            return


def _busy_s() -> float:
    """CPU seconds of all processes since the machine was started."""
    times = psutil.cpu_times()
    return float(times.user + times.system + times.nice + times.irq + times.softirq)
