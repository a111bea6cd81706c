"""How a contender that runs in this process is timed, and the moments at which its phases change."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from analysis.latency import phase_ns
from benchmarks.peers.contenders import LEAST_ITERATIONS, Task
from harness import phases
from harness.phases import CudaTimer, HostTimer, PhaseClock, SilentAnnotator


class Peer(Protocol):
    """Decodes all windows of a task, again and again."""

    def run(self, clock: PhaseClock) -> None:
        """One iteration, from PCM to token ids on the host, with the phases encode and decode: the encoder,
        and all that comes after the first token."""

    def tokens(self) -> list[list[int]]:
        """Of each window in the last iteration, without the prompt."""


class Marks:
    """Turns three moments that every implementation has into the phases of an iteration.

    Hooks stay where they are for all iterations: compiled code would be compiled anew for each change.
    """

    def __init__(self, tokens: int) -> None:
        self._tokens = tokens

    @contextmanager
    def on(self, clock: PhaseClock) -> Iterator[None]:
        """One iteration, up to its last token."""
        self._clock, self._open, self._chosen = clock, "", 0
        yield
        self._change("")  # if fewer tokens came than were asked for

    def encoder_begins(self, *_: object) -> None:
        self._change(phases.ENCODE)

    def encoder_ends(self, *_: object) -> None:
        self._change(phases.PREFILL)

    def token_chosen(self) -> None:
        """Called once when each of the windows has got its next token."""
        self._chosen += 1
        if self._chosen == 1:
            self._change(phases.DECODE)
        if self._chosen == self._tokens:
            self._change("")

    def _change(self, to: str) -> None:
        if self._open:
            self._clock.end(self._open)
        if to:
            self._clock.begin(to)
        self._open = to


def timed(peer: Peer, task: Task) -> dict[str, Any]:
    """Per iteration: `step_ms` (a token for each window), `encode_ms` and `total_ms` (both per window); and
    `tokens`. RuntimeError unless each window has as many as were asked for."""
    timer = CudaTimer() if task.device == "cuda" else HostTimer()
    for _ in range(task.warmup):
        peer.run(PhaseClock(timer, SilentAnnotator()))
    clocks, iter_ns = _iterations(peer, task, timer)
    taken = [{"iter_ns": ns, "phases": clock.take()} for ns, clock in zip(iter_ns, clocks, strict=True)]
    tokens = peer.tokens()
    counts = [len(window) for window in tokens]
    if counts != [task.tokens] * task.batch:
        found = f"{len(counts)} windows of {min(counts, default=0)} to {max(counts, default=0)} tokens"
        raise RuntimeError(f"decoded {found}, and {task.batch} windows of {task.tokens} were asked for")
    return {
        "step_ms": [_ms(phase_ns(one, phases.DECODE), task.tokens - 1) for one in taken],
        "encode_ms": [_ms(phase_ns(one, phases.ENCODE), task.batch) for one in taken],
        "total_ms": [_ms(one["iter_ns"], task.batch) for one in taken],
        "tokens": tokens,
    }


def _iterations(peer: Peer, task: Task, timer: Any) -> tuple[list[PhaseClock], list[int]]:
    """The clocks are read when all is done: reading events takes as long as a gap."""
    clocks: list[PhaseClock] = []
    iter_ns: list[int] = []
    gc.collect()
    gc.disable()  # it would stop the host in the middle of an iteration
    try:
        while len(iter_ns) < task.iterations and (
            len(iter_ns) < LEAST_ITERATIONS or sum(iter_ns) < task.seconds * 1e9
        ):
            clocks.append(PhaseClock(timer, SilentAnnotator()))
            begin = time.perf_counter_ns()
            peer.run(clocks[-1])
            iter_ns.append(time.perf_counter_ns() - begin)
    finally:
        gc.enable()
    return clocks, iter_ns


def _ms(ns: float, parts: int) -> float:
    return round(ns / parts / 1e6, 5)
