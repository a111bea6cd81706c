"""Phases of the measured work: every phase is timed and shown to the profiler by the same calls."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import nvtx

DOMAIN = "harness"

ITER = "iter"
FEATURES = "features"
ENCODE = "encode"
PREFILL = "prefill"
DECODE = "decode"
DECODE_STEP = "decode.step"
DRAFT = "decode.draft"
VERIFY = "decode.verify"

# What is counted beside the times.
TOKENS = "tokens"  # that the decode phase gave, end tokens among them; the first of a window is the prefill's
ROUNDS = "rounds"  # of decoding, summed over the windows of a batch
DRAFTED, ACCEPTED = "drafted", "accepted"  # tokens of a draft, and those that the model confirmed


class Timer(Protocol):
    """Takes stamps now and turns pairs of them into nanoseconds later."""

    def stamp(self) -> Any: ...

    def resolve(self, pairs: list[tuple[Any, Any]]) -> list[int]: ...


class HostTimer:
    """Host clock. On the CPU, where calls return when the work is done, this is the work's time."""

    def stamp(self) -> int:
        return time.perf_counter_ns()

    def resolve(self, pairs: list[tuple[int, int]]) -> list[int]:
        return [end - start for start, end in pairs]


class CudaTimer:
    """Events on the current stream: device time from stamp to stamp, without a synchronise between."""

    def __init__(self) -> None:
        import torch

        self._cuda = torch.cuda

    def stamp(self) -> Any:
        event = self._cuda.Event(enable_timing=True)
        event.record()
        return event

    def resolve(self, pairs: list[tuple[Any, Any]]) -> list[int]:
        self._cuda.synchronize()
        return [round(start.elapsed_time(end) * 1e6) for start, end in pairs]


class Annotator(Protocol):
    """Opens and closes named ranges in whichever profiler is listening. Ranges nest."""

    def push(self, name: str, payload: int | None = None) -> None: ...

    def pop(self) -> None: ...


class NvtxAnnotator:
    """NVTX ranges in the domain `harness`; nearly free while no profiler listens."""

    def push(self, name: str, payload: int | None = None) -> None:
        nvtx.push_range(name, domain=DOMAIN, payload=payload)

    def pop(self) -> None:
        nvtx.pop_range(domain=DOMAIN)


class SilentAnnotator:
    """No ranges: for work that is not to be found in a trace, such as warm-up."""

    def push(self, name: str, payload: int | None = None) -> None:
        pass

    def pop(self) -> None:
        pass


class RecordFunctionAnnotator:
    """torch.profiler ranges named `harness:<phase>`; payloads have no place there and are dropped."""

    def __init__(self) -> None:
        from torch.profiler import record_function

        self._record_function = record_function
        self._open: list[Any] = []

    def push(self, name: str, payload: int | None = None) -> None:
        entered = self._record_function(f"{DOMAIN}:{name}")
        entered.__enter__()
        self._open.append(entered)

    def pop(self) -> None:
        self._open.pop().__exit__(None, None, None)


class PhaseClock:
    """Times phases and annotates them. The same calls run with and without a profiler."""

    def __init__(self, timer: Timer, annotator: Annotator) -> None:
        self._timer = timer
        self._annotator = annotator
        self._open: list[tuple[str, Any]] = []
        self._done: list[tuple[str, tuple[Any, Any]]] = []
        self.counts: dict[str, int] = {}

    def count(self, name: str, number: int) -> None:
        """Add to what is counted by that name."""
        self.counts[name] = self.counts.get(name, 0) + number

    def begin(self, name: str, payload: int | None = None) -> None:
        """Open the phase `name`; `payload` is what varies between its calls (a position, a count)."""
        self._annotator.push(name, payload)
        self._open.append((name, self._timer.stamp()))

    def end(self, name: str) -> None:
        """Close the innermost open phase, which has to be `name`."""
        if not self._open or self._open[-1][0] != name:
            innermost = self._open[-1][0] if self._open else "none"
            raise ValueError(f"phase {name!r} ends, but the innermost open phase is {innermost!r}")
        _, start = self._open.pop()
        self._done.append((name, (start, self._timer.stamp())))
        self._annotator.pop()

    @contextmanager
    def phase(self, name: str, payload: int | None = None) -> Iterator[None]:
        """`begin` and `end` around a block. When the block raises, whatever it left open is closed."""
        depth = len(self._open)
        self.begin(name, payload)
        try:
            yield
        except BaseException:
            while len(self._open) > depth:
                self._open.pop()
                self._annotator.pop()
            raise
        self.end(name)

    def take(self) -> dict[str, list[int]]:
        """Durations in ns by phase, each list in the order the phases ended; empties the clock."""
        if self._open:
            raise ValueError(f"phase {self._open[-1][0]!r} is still open")
        durations = self._timer.resolve([pair for _, pair in self._done])
        taken: dict[str, list[int]] = {}
        for (name, _), dur_ns in zip(self._done, durations, strict=True):
            taken.setdefault(name, []).append(dur_ns)
        self._done.clear()
        return taken
