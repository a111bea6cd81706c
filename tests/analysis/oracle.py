"""The rules of the causes once more, a nanosecond at a time: slow, plain, nothing shared with `analysis`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property

from recording import DOMAINS, HARNESS, Call, Range, Recording, Work, process

CAUSES = ("host", "sync", "api", "launch", "dependency", "graph", "dispatch", "profiler", "unknown")
DISPATCH_LIMIT_NS = 40  # not the real one: programs of a few hundred ns have to reach both sides of it
CALL_CLASS = {
    "cudaLaunchKernel_v7000": "launch", "cudaLaunchKernelExC_v11060": "launch", "cuLaunchKernel": "launch",
    "cudaGraphLaunch_v10000": "launch", "cudaMemsetAsync_v3020": "launch",
    "cudaStreamSynchronize_v3020": "sync", "cudaDeviceSynchronize_v3020": "sync",
    "cudaEventSynchronize_v3020": "sync", "cuCtxSynchronize": "sync", "cudaMemcpy_v3020": "sync",
    "cudaMemcpyAsync_v3020": "sync",
    "cudaMalloc_v3020": "api", "cuModuleLoadData": "api", "cudaGraphInstantiate_v10000": "api",
    "cudaEventRecord_v3020": "api", "cudaStreamWaitEvent_v3020": "api",
}  # fmt: skip


@dataclass(frozen=True)
class Gap:
    """An idle interval of a device, the work before it and the one that ended it (None: a window's end)."""

    start: int
    end: int
    before: Work | None
    after: Work | None


class Oracle:
    """What an analysis of a recording has to find."""

    def __init__(self, seen: Recording) -> None:
        self.seen = seen
        self.work = sorted(sound(seen.work), key=_order)

    @cached_property
    def window(self) -> tuple[int, int]:
        """From the first to the last harness iteration, or all work."""
        spans = [
            (one.start, self._closed(one))
            for one in self.seen.ranges
            if one.name == "iter" and one.domain == HARNESS
        ] or [(one.start, one.end) for one in self.work]
        return min(start for start, _ in spans), max(end for _, end in spans)

    @property
    def devices(self) -> list[int]:
        return sorted({one.stream.device for one in self._inside})

    def busy(self, device: int) -> set[int]:
        """The nanoseconds of the window in which the device worked."""
        low, high = self.window
        spans = [(one.start, one.end) for one in self._inside if one.stream.device == device]
        return {ns for start, end in spans for ns in range(max(start, low), min(end, high))}

    def causes(self, device: int) -> dict[int, str]:
        """The cause of each idle nanosecond."""
        busy = self.busy(device)
        gap, found = None, {}
        for ns in range(*self.window):
            if ns in busy:
                continue
            if gap is None or not gap.start <= ns < gap.end:
                gap = self._gap_at(device, ns)
            found[ns] = self._cause(gap, ns)
        return found

    def phases(self) -> dict[tuple[str, str], dict[str, int]]:
        """By domain and name of ranges: busy and idle time of the work launched inside, by cause; kernels."""
        low, high = self.window
        found: dict[tuple[str, str], dict[str, int]] = {}
        gaps = {device: self._gaps(device) for device in self.devices}
        for domain, name in {(one.domain, one.name) for one in self._ranges}:
            members = [one for one in self._inside if self._is_launched_in(one, domain, name)]
            busy = {
                (one.stream.device, ns)
                for one in members
                for ns in range(max(one.start, low), min(one.end, high))
            }
            spent = Counter(
                cause
                for device in gaps
                for gap, causes in gaps[device]
                if gap.after in members
                for cause in causes
            )
            kernels = sum(one.kind in ("kernel", "graph") for one in members)
            found[DOMAINS[domain], name] = {
                "busy_ns": len(busy), "idle_ns": spent.total(), "kernels": kernels, "work": len(members),
                **{f"{cause}_ns": spent[cause] for cause in CAUSES},
            }  # fmt: skip
        return found

    def _gaps(self, device: int) -> list[tuple[Gap, list[str]]]:
        """The gaps of a device, each with the causes of its nanoseconds."""
        gaps: list[tuple[Gap, list[str]]] = []
        for ns, cause in self.causes(device).items():
            if not gaps or ns >= gaps[-1][0].end:
                gaps.append((self._gap_at(device, ns), []))
            gaps[-1][1].append(cause)
        return gaps

    @cached_property
    def _ranges(self) -> list[Range]:
        """The ranges that reach into the window, closed."""
        low, high = self.window
        closed = [replace(one, end=self._closed(one)) for one in self.seen.ranges]
        is_cut = any(one.name == "iter" and one.domain == HARNESS for one in closed)
        return [one for one in closed if not is_cut or (one.start < high and one.end > low)]

    def _is_launched_in(self, work: Work, domain: int, name: str) -> bool:
        launch = self._launch_of(work)
        return launch is not None and any(
            (one.domain, one.name, one.pid, one.thread) == (domain, name, launch.pid, launch.thread)
            and one.start <= launch.start < one.end
            for one in self._ranges
        )

    def _closed(self, one: Range) -> int:
        """A range that was never closed lasts until the last event."""
        return self._last_event if one.end is None else max(one.start, one.end)

    @cached_property
    def _inside(self) -> list[Work]:
        low, high = self.window
        return [
            one for one in self.work
            if (one.start < high and one.end > low) or low <= one.start == one.end <= high
        ]  # fmt: skip

    @cached_property
    def _last_event(self) -> int:
        rows: list[Work | Call | Range] = [*self.work, *self.seen.calls, *self.seen.ranges]
        return max(max(one.start, one.end or 0) for one in rows)

    def _gap_at(self, device: int, ns: int) -> Gap:
        own = [one for one in self._inside if one.stream.device == device]
        begun = [one for one in own if one.start <= ns]
        before = max(begun, key=lambda one: (one.end, _order(one)), default=None)
        after = min((one for one in own if one.start > ns), key=_order, default=None)
        start = self.window[0] if before is None else max(self.window[0], before.end)
        return Gap(start, self.window[1] if after is None else after.start, before, after)

    def _cause(self, gap: Gap, ns: int) -> str:
        witness = gap.after or gap.before  # after the last work: as if its thread never launched again
        assert witness is not None
        launch = self._launch_of(witness)
        if self._profiled(launch, ns):
            return "profiler"
        if gap.after is None:
            return "unknown" if launch is None else self._host(launch, ns)
        if self._has_earlier_sibling(gap.after):
            return "graph"
        if launch is None:
            return "unknown"
        if ns < launch.start:
            return self._host(launch, ns)
        if ns < launch.end:
            return "launch"
        waited = self._waited(gap.after, launch)
        if launch.end > gap.start:
            return "dependency" if waited else "launch"
        return "dependency" if waited else self._in_time(gap)

    def _in_time(self, gap: Gap) -> str:
        """Launched before the gap began, and no event to wait for."""
        if gap.before is None or gap.before.stream.pid != gap.after.stream.pid:
            return "unknown"
        if gap.before.stream != gap.after.stream:
            return "dependency"
        return "dispatch" if gap.end - gap.start <= DISPATCH_LIMIT_NS else "unknown"

    def _host(self, launch: Call, ns: int) -> str:
        """What the launching thread did: the outermost of its calls at this time, or its own code."""
        covering = [
            call for call in self.seen.calls
            if (call.pid, call.thread) == (launch.pid, launch.thread) and call.start <= ns < call.end
        ]  # fmt: skip
        if not covering:
            return "host"
        return CALL_CLASS[min(covering, key=lambda call: (call.start, -call.end)).name]

    def _launch_of(self, work: Work) -> Call | None:
        if work.correlation is not None:
            return self._call_of(work)
        if work.node is None:
            return None
        # In a conditional node: launched with its graph, whose other nodes say when that was last.
        graph = work.stream.pid, work.node >> 32
        nodes = [one for one in self.work if one.node is not None and one.start <= work.start]
        calls = [
            (one.start, self._call_of(one)) for one in nodes if (one.stream.pid, one.node >> 32) == graph
        ]
        known = [(start, call) for start, call in calls if call is not None]
        latest = max(known, key=lambda one: (one[0], one[1].start, one[1].thread), default=None)
        return latest[1] if latest else None

    def _call_of(self, work: Work) -> Call | None:
        """The one with the work's own correlation id."""
        key = work.stream.pid, work.correlation
        calls = [call for call in self.seen.calls if (call.pid, call.correlation) == key]
        return min(calls, key=lambda call: call.start, default=None) if work.correlation is not None else None

    def _has_earlier_sibling(self, work: Work) -> bool:
        launch, key = self._launch_of(work), (work.stream.pid, work.correlation)
        if launch is None and work.correlation is None:
            return False
        siblings = [
            one
            for one in self.work
            if (self._launch_of(one) is launch if launch else (one.stream.pid, one.correlation) == key)
        ]
        return any(one.start < work.start for one in siblings)

    def _waited(self, work: Work, launch: Call) -> bool:
        """Between the launch of the stream's previous work and this one's the stream was told to wait."""
        stream = [one for one in self.work if one.stream == work.stream]
        place = stream.index(work)
        previous = self._launch_of(stream[place - 1]) if place else None
        since = previous.start if previous else 0
        return any(one == work.stream and since < at < launch.start for one, _, at in self.seen.waits)

    def _profiled(self, launch: Call | None, ns: int) -> bool:
        return launch is not None and any(
            row.pid == launch.pid and row.thread in (0, launch.thread) and row.start <= ns < row.end
            for row in self.seen.overheads
        )


def sound(work: list[Work]) -> list[Work]:
    """Work whose times can be: the rest is left out."""
    return [one for one in work if one.end >= one.start]


def _order(work: Work) -> tuple[int, ...]:
    """The order of work that starts together."""
    return (
        work.start, work.end, work.stream.stream, process(work.stream.pid),
        -1 if work.correlation is None else work.correlation, -1 if work.node is None else work.node,
    )  # fmt: skip
