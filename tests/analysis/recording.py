"""What a profiler saw of a program, in plain rows: nsys's tables are made of it, and `oracle.py` reads it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from synthetic_export import START_END, Export, global_tid

HARNESS, OTHER = 1, 2
DOMAINS = {HARNESS: "harness", OTHER: "library"}  # of NVTX
VMS = {1: 1, 2: 0xFFF0}  # by process; the second makes every identity negative
OPTIONAL = ("calls", "waits", "overheads", "ranges", "memcpy", "memset")  # rows that a profiler may not have


@dataclass(frozen=True)
class Stream:
    pid: int
    device: int
    context: int
    stream: int


@dataclass(frozen=True)
class Work:
    kind: str
    name: str
    stream: Stream
    correlation: int | None
    start: int
    end: int
    node: int | None = None


@dataclass(frozen=True)
class Call:
    pid: int
    thread: int
    name: str
    correlation: int | None
    start: int
    end: int


@dataclass(frozen=True)
class Overhead:
    """The profiler's own work, in one thread or (thread 0) in the process as a whole."""

    pid: int
    thread: int
    start: int
    end: int


@dataclass(frozen=True)
class Range:
    """An NVTX range; without an end it was never closed, with `end_thread` it is a start/end range."""

    pid: int
    thread: int
    domain: int
    name: str
    start: int
    end: int | None = None
    registered: bool = False
    end_thread: int | None = None


@dataclass(frozen=True)
class Recording:
    """All rows. A wait is (stream, correlation, time): its next work waits for an event of another stream."""

    work: list[Work] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    waits: list[tuple[Stream, int, int]] = field(default_factory=list)
    overheads: list[Overhead] = field(default_factory=list)
    ranges: list[Range] = field(default_factory=list)

    def without(self, kinds: frozenset[str]) -> Recording:
        """This recording by a profiler that wrote no rows of these kinds (of OPTIONAL)."""
        lists = {kind: [] for kind in kinds if hasattr(self, kind)}
        return replace(self, **lists, work=[one for one in self.work if one.kind not in kinds])

    def export(self) -> Export:
        export = Export()
        for pid, vm in VMS.items():
            for domain, name in DOMAINS.items():
                export.domain(name, domain, pid=pid, vm=vm)
        for one in self.work:
            where = {**vars(one.stream), "vm": VMS[one.stream.pid]}
            if one.kind == "kernel":
                where |= {"name": one.name, "node": one.node}
            getattr(export, one.kind)(one.start, one.end, one.correlation, **where)
        for call in self.calls:
            owner = {"pid": call.pid, "thread": call.thread, "vm": VMS[call.pid]}
            export.call(call.start, call.end, call.correlation, name=call.name, **owner)
        for stream, correlation, at in self.waits:
            where = {**vars(stream), "vm": VMS[stream.pid]}
            export.wait(at, at + 1, correlation=correlation, **where)
        for row in self.overheads:
            export.overhead(**vars(row), vm=VMS[row.pid])
        for span in self.ranges:
            export.range(
                span.name, span.start, span.end, domain=span.domain, pid=span.pid, thread=span.thread,
                vm=VMS[span.pid], registered=span.registered, end_thread=span.end_thread,
                kind=59 if span.end_thread is None else START_END,
            )  # fmt: skip
        return export


def process(pid: int) -> int:
    """nsys's globalPid of one of these processes."""
    return global_tid(pid, vm=VMS[pid])
