"""A small machine that runs drawn programs of a few hundred ns, and records them as a profiler would.

Host threads take turns by their clocks; streams work first in, first out.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from hypothesis import strategies as st
from recording import HARNESS, OPTIONAL, OTHER, Call, Overhead, Range, Recording, Stream, Work

PHASES = ("iter", "prefill", "decode", "decode.step")


@dataclass(frozen=True)
class Op:
    """One step of a host thread: it thinks, then makes a call. Times in ns; `quirk` is what goes wrong."""

    what: str
    think: int
    call: int
    latency: int
    work: int
    pick: int
    quirk: str


@dataclass
class Machine:
    """Runs operations, each in the thread whose clock is furthest behind."""

    threads: list[tuple[int, int]]  # (pid, thread)
    streams: list[Stream]
    seen: Recording = field(default_factory=Recording)
    clock: dict[tuple[int, int], int] = field(default_factory=dict)
    free_at: dict[Stream, int] = field(default_factory=dict)  # when the stream's last work ends
    held_until: dict[Stream, int] = field(default_factory=dict)  # when what it waits for ends
    correlations: dict[int, int] = field(default_factory=dict)
    open_ranges: dict[tuple[int, int], list[Range]] = field(default_factory=dict)

    def run(self, op: Op) -> None:
        who = min(self.threads, key=lambda one: (self.clock.get(one, 1000), one))
        now = self.clock.get(who, 1000) + op.think
        mine = [stream for stream in self.streams if stream.pid == who[0]]
        stream = mine[op.pick % len(mine)]
        self.clock[who] = getattr(self, f"_{op.what}")(op, who, now, stream)

    def finish(self) -> Recording:
        """Ranges that are still open stay so."""
        self.seen.ranges.extend(span for spans in self.open_ranges.values() for span in spans)
        return self.seen

    def _launch(self, op: Op, who: tuple[int, int], now: int, stream: Stream) -> int:
        calls = ("cudaLaunchKernel_v7000", "cudaLaunchKernelExC_v11060", "cuLaunchKernel")
        return self._enqueue(op, who, now, stream, calls[op.pick % 3], ("kernel",))

    def _graph(self, op: Op, who: tuple[int, int], now: int, stream: Stream) -> int:
        """Its nodes are traced (their branches in several streams), or the graph as a whole."""
        kinds = ("kernel",) * (2 + op.pick) if op.pick else ("graph",)
        return self._enqueue(op, who, now, stream, "cudaGraphLaunch_v10000", kinds)

    def _copy(self, op: Op, who: tuple[int, int], now: int, stream: Stream) -> int:
        kind, name = (("memcpy", "cudaMemcpyAsync_v3020"), ("memset", "cudaMemsetAsync_v3020"))[op.pick % 2]
        return self._enqueue(op, who, now, stream, name, (kind,))

    def _blocking_copy(self, op: Op, who: tuple[int, int], now: int, stream: Stream) -> int:
        return self._enqueue(op, who, now, stream, "cudaMemcpy_v3020", ("memcpy",), blocking=True)

    def _enqueue(
        self, op: Op, who: tuple[int, int], now: int, stream: Stream, name: str, kinds: tuple[str, ...],
        *, blocking: bool = False,
    ) -> int:  # fmt: skip
        """Work in a stream's queue, and the call that put it there."""
        correlation = self._correlation(who[0])
        outer_start, now = now, now + (2 if op.quirk == "nested" else 0)
        begin = max(now + 1 + op.latency, self.free_at.get(stream, 0), self.held_until.pop(stream, 0))
        if op.quirk == "early":  # programmatic dependent launch: before the stream's last kernel ends
            begin = max(now + 1, begin - op.latency)
        if op.quirk == "stalled":
            begin += 20 + op.latency  # around the limit of a dispatch
        for node, kind in enumerate(kinds):
            end = begin + (0 if op.quirk == "empty" else op.work)
            where = self._branch(stream) if node % 3 == 2 else stream
            known = None if op.quirk == "conditional" and node else correlation
            identity = (op.pick << 32) + node if len(kinds) > 1 else None  # of the graph, of its node
            self._record(op, kind, where, known, begin, end, identity)
            self.free_at[where] = max(end, self.free_at.get(where, 0))
            begin = end + op.latency // 4
        call_end = max(now + 1 + op.call, end + 1 if blocking else 0)
        if op.quirk != "no_call":
            self.seen.calls.append(Call(*who, name, correlation, now, call_end))
        if op.quirk == "second_call":
            self.seen.calls.append(Call(*who, "cuLaunchKernel", correlation, now + 1, call_end))
        if op.quirk == "inner" and call_end > now + 2:
            self._call(who, "cuModuleLoadData", now + 1, call_end - 1)
        if op.quirk == "nested":
            outer = ("cudaMalloc_v3020", "cudaDeviceSynchronize_v3020", "cudaLaunchKernel_v7000")[op.pick % 3]
            call_end += 1
            self._call(who, outer, outer_start, call_end)
        return call_end

    def _record(
        self,
        op: Op,
        kind: str,
        stream: Stream,
        correlation: int | None,
        start: int,
        end: int,
        node: int | None,
    ) -> None:
        if op.quirk == "clock":  # the device's clock is behind the host's
            start, end = start - op.call - op.latency, end - op.call - op.latency
        if op.quirk == "backwards":
            end = start - op.work
        known = None if op.quirk == "no_correlation" else correlation
        self.seen.work.append(Work(kind, f"kernel_{stream.stream}", stream, known, start, end, node))

    def _branch(self, stream: Stream) -> Stream:
        """Another stream of the same process and device, if there is one."""
        own = [one for one in self.streams if (one.pid, one.device) == (stream.pid, stream.device)]
        return own[(own.index(stream) + 1) % len(own)]

    def _sync(self, op: Op, who: tuple[int, int], now: int, stream: Stream) -> int:
        names = ("cudaStreamSynchronize_v3020", "cudaDeviceSynchronize_v3020", "cudaEventSynchronize_v3020",
                 "cuCtxSynchronize")  # fmt: skip
        end = max(now + 1 + op.call, self.free_at.get(stream, 0) + 1)
        self._call(who, names[op.pick % len(names)], now, end)
        return end

    def _other(self, op: Op, who: tuple[int, int], now: int, stream: Stream) -> int:
        names = (
            "cudaMalloc_v3020",
            "cuModuleLoadData",
            "cudaGraphInstantiate_v10000",
            "cudaEventRecord_v3020",
        )
        self._call(who, names[op.pick % len(names)], now, now + 1 + op.call)
        return now + 1 + op.call

    def _wait(self, op: Op, who: tuple[int, int], now: int, stream: Stream) -> int:
        """The stream's next work waits for what another stream has queued by now."""
        others = [self.free_at.get(one, 0) for one in self.streams if one != stream]
        self.held_until[stream] = max([*others, 0]) + op.latency
        self._call(who, "cudaStreamWaitEvent_v3020", now, now + 1 + op.call)
        self.seen.waits.append((stream, self.correlations[who[0]], now))
        return now + 1 + op.call

    def _overhead(self, op: Op, who: tuple[int, int], now: int, stream: Stream) -> int:
        """Beside what the thread does: its clock stays."""
        thread = 0 if op.pick == 3 else who[1]
        self.seen.overheads.append(Overhead(who[0], thread, now - op.latency, now + op.work))
        return now

    def _push(self, op: Op, who: tuple[int, int], now: int, stream: Stream) -> int:
        """Nested as the harness's own phases are, or a library's."""
        stack = self.open_ranges.setdefault(who, [])
        own = [span for span in stack if span.domain == HARNESS]
        if op.pick == 3:
            stack.append(Range(*who, OTHER, "library", now, registered=True))
        elif len(own) < len(PHASES) - 1:
            stack.append(Range(*who, HARNESS, PHASES[len(own) + op.pick % 2], now, registered=op.pick == 2))
        return now

    def _pop(self, op: Op, who: tuple[int, int], now: int, stream: Stream) -> int:
        if stack := self.open_ranges.get(who):
            self.seen.ranges.append(replace(stack.pop(), end=now))
        return now

    def _span(self, op: Op, who: tuple[int, int], now: int, stream: Stream) -> int:
        """A start/end range that another thread of the process may close; it need not nest."""
        other = max(thread for pid, thread in self.threads if pid == who[0])
        end = now + op.work + op.latency
        self.seen.ranges.append(Range(*who, OTHER, "span", now, end, end_thread=other))
        return now

    def _call(self, who: tuple[int, int], name: str, start: int, end: int) -> None:
        self.seen.calls.append(Call(*who, name, self._correlation(who[0]), start, end))

    def _correlation(self, pid: int) -> int:
        self.correlations[pid] = self.correlations.get(pid, 0) + 1
        return self.correlations[pid]


OPS = (
    "launch", "launch", "launch", "graph", "copy", "blocking_copy", "sync", "other", "wait", "wait",
    "overhead", "push", "push", "pop", "span",
)  # fmt: skip
QUIRKS = (
    "", "", "", "", "", "", "", "", "no_correlation", "no_call", "second_call", "nested", "inner", "clock",
    "backwards", "empty", "early", "stalled", "conditional",
)  # fmt: skip


def ops(whats: tuple[str, ...]) -> st.SearchStrategy[Op]:
    short, long = st.integers(0, 12), st.integers(0, 60)
    return st.builds(
        Op, st.sampled_from(whats), short, long, long, long, st.integers(0, 3), st.sampled_from(QUIRKS)
    )


@st.composite
def recordings(draw: st.DrawFn) -> Recording:
    """Programs of up to thirty operations in up to two processes, with at least one kernel to account for."""
    processes = draw(st.sampled_from([(1,), (1,), (1, 2)]))
    threads = [(pid, thread) for pid in processes for thread in range(1, draw(st.integers(1, 2)) + 1)]
    wanted = draw(
        st.lists(st.tuples(st.integers(0, 1), st.integers(7, 8)), min_size=1, max_size=4, unique=True)
    )
    # Contexts, streams and correlations are numbered per process: they repeat.
    streams = [Stream(pid, device, device + 1, stream) for pid in processes for device, stream in wanted]
    machine = Machine(threads, streams)
    machine.run(replace(draw(ops(("launch",))), quirk=""))
    length = draw(st.integers(0, 30))
    for op in draw(st.lists(ops(OPS), min_size=length, max_size=length)):
        machine.run(op)
    missing = draw(st.sampled_from([frozenset(), frozenset(), frozenset(), *({kind} for kind in OPTIONAL)]))
    return machine.finish().without(frozenset(missing))
