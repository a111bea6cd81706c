"""Child processes: each in a session of its own, its output in a log, ended with its parent."""

from __future__ import annotations

import fcntl
import os
import selectors
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import psutil
from rich.console import Console

from harness.progress import Bar

GRACE_S = 5.0
_LOOK_S = 0.02
_CHUNK = 1 << 16


def run(command: Sequence[str], log: Path, bar: Bar) -> int:
    """Run `command`, append its output to `log`, feed its progress lines to `bar`; return its exit status.

    Negative: the signal that killed it. Whatever ends the wait (Ctrl-C, a full disk), the child and all of
    its descendants are ended before this returns or raises. The wait sleeps in the kernel: nothing spins
    beside the measurement.
    """
    with open(log, "ab") as sink:
        # A session of its own: the terminal's Ctrl-C comes to us, and we end the children in order.
        child = subprocess.Popen(
            with_parent_death_signal(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        assert child.stdout is not None
        with child.stdout as pipe:
            try:
                _drain(child, pipe, sink, bar)
                return child.wait()
            finally:
                end(child)


def with_parent_death_signal(command: Sequence[str]) -> list[str]:
    """`command`, to which the kernel sends SIGTERM when this process ends, even killed: a profiler that
    nobody waits for would disturb the next measurement. By util-linux's setpriv, if it is there: Popen's
    preexec_fn is not safe beside threads."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "TERM", *command] if setpriv else list(command)


def end(child: subprocess.Popen[bytes]) -> None:
    """End the session of `child` and all descendants: TERM, five seconds, KILL."""
    family = _family(child.pid)
    _signal(family, signal.SIGTERM)
    deadline_s = time.monotonic() + GRACE_S
    try:
        while any(map(lives, family)) and time.monotonic() < deadline_s:
            time.sleep(_LOOK_S)
    finally:  # a second Ctrl-C cuts the grace short
        _signal(family, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            child.wait(GRACE_S)


def lives(process: psutil.Process) -> bool:
    """Whether it still does something. A zombie doesn't: nsys leaves one behind, and process 1 of a container
    collects those of others late or never, which isn't to be waited for."""
    with suppress(psutil.NoSuchProcess):
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    return False


@contextmanager
def terminate_like_interrupt() -> Iterator[None]:
    """SIGTERM and a closed terminal (SIGHUP, unless nohup ignores it) end the block as Ctrl-C does: by
    KeyboardInterrupt."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    handlers = {number: handler for number, handler in handlers.items() if handler != signal.SIG_IGN}
    try:
        for number in handlers:
            signal.signal(number, interrupt)
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


@contextmanager
def alone(name: str, out: Console) -> Iterator[None]:
    """Hold the machine-wide lock `name`, waiting for whoever holds it: timings side by side are worthless."""
    path = Path(tempfile.gettempdir()) / f"harness-{name}.lock"
    try:
        lock = os.open(path, os.O_RDONLY)  # another user's file can't be opened with O_CREAT
    except FileNotFoundError:
        lock = os.open(path, os.O_RDONLY | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            out.print("waiting for another run on this GPU ...", markup=False)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def killed(status: int) -> signal.Signals | None:
    """The signal that ended a process; profilers report that of their program as 128 + signal."""
    with suppress(ValueError):
        return signal.Signals(-status if status < 0 else status - 128)
    return None


def describe_exit(status: int) -> str:
    """ "exit code 3" or "killed by SIGKILL"."""
    number = killed(status)
    return f"killed by {number.name}" if number else f"exit code {status}"


def _drain(child: subprocess.Popen[bytes], pipe: IO[bytes], sink: IO[bytes], bar: Bar) -> None:
    """Copy the output until the child has ended. A descendant that keeps the pipe open is not waited for."""
    os.set_blocking(pipe.fileno(), False)
    ended = os.pidfd_open(child.pid)
    pending = b""
    with selectors.DefaultSelector() as selector:
        try:
            selector.register(pipe, selectors.EVENT_READ)
            selector.register(ended, selectors.EVENT_READ)
            alive = True
            while alive:
                ready = {key.fd for key, _ in selector.select(bar.wait_s())}
                bar.tick()
                alive = ended not in ready
                while chunk := pipe.read(_CHUNK):
                    *lines, pending = (pending + chunk).split(b"\n")
                    for line in lines:
                        _take(line + b"\n", sink, bar)
                if chunk == b"" and pipe.fileno() in ready:
                    selector.unregister(pipe)
        finally:
            os.close(ended)
    _take(pending, sink, bar)


def _take(line: bytes, sink: IO[bytes], bar: Bar) -> None:
    if line and not bar.feed(line.decode(errors="replace")):
        sink.write(line.rsplit(b"\r", 1)[-1])  # of a progress bar, its last state
        sink.flush()


def _family(leader: int) -> list[psutil.Process]:
    """Everything in the leader's session, and its descendants, which profilers may put elsewhere."""
    family = set()
    for process in psutil.process_iter():
        with suppress(ProcessLookupError):
            if os.getsid(process.pid) == leader:
                family.add(process)
    with suppress(psutil.NoSuchProcess):
        family |= {process for p in list(family) for process in p.children(recursive=True)}
    return list(family)


def _signal(family: list[psutil.Process], number: signal.Signals) -> None:
    for process in family:
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            process.send_signal(number)
