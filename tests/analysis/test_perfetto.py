"""A Perfetto trace is well formed and holds what the trace and its account hold, to the nanosecond."""

from __future__ import annotations

import gzip
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from memory_trace import PERIOD_NS, traced
from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace as Packets
from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import TracePacket, TrackDescriptor, TrackEvent
from synthetic_export import Export

from analysis import Account, Trace, account, perfetto
from analysis.__main__ import main
from analysis.accounting.causes import CAUSES
from analysis.accounting.kernels import short_name
from analysis.errors import TraceError
from analysis.memory.samples import Samples
from analysis.perfetto import packets


@dataclass
class Slice:
    track: TrackDescriptor
    name: str
    category: str
    start_ns: int
    depth: int
    args: dict[str, object]
    begins: list[int]
    ends: list[int]
    end_ns: int = -1


@dataclass
class State:
    """What the packets of a sequence may refer to, until the sequence is told anew."""

    track: int
    names: dict[int, str]
    categories: dict[int, str]
    labels: dict[int, str]
    texts: dict[int, str]

    @classmethod
    def of(cls, packet: TracePacket) -> State:
        known = packet.interned_data
        return cls(
            packet.trace_packet_defaults.track_event_defaults.track_uuid,
            {entry.iid: entry.name for entry in known.event_names},
            {entry.iid: entry.name for entry in known.event_categories},
            {entry.iid: entry.name for entry in known.debug_annotation_names},
            {entry.iid: entry.str.decode() for entry in known.debug_annotation_string_values},
        )


@dataclass
class Viewer:
    """Reads a file as the format's reference says, and objects to whatever that doesn't allow."""

    tracks: dict[int, TrackDescriptor] = field(default_factory=dict)
    slices: list[Slice] = field(default_factory=list)
    counters: dict[str, list[tuple[int, float]]] = field(default_factory=lambda: defaultdict(list))

    @classmethod
    def open(cls, path: Path) -> Viewer:
        raw = path.read_bytes()
        parsed = Packets.FromString(gzip.decompress(raw) if path.suffix == ".gz" else raw)
        viewer = cls()
        state: dict[int, State] = {}
        clock: dict[int, int] = defaultdict(int)
        stacks: dict[int, list[Slice]] = defaultdict(list)
        for packet in parsed.packet:
            sequence = packet.trusted_packet_sequence_id
            if packet.HasField("track_descriptor"):
                track = packet.track_descriptor
                assert track.uuid not in viewer.tracks
                assert not track.parent_uuid or track.parent_uuid in viewer.tracks
                viewer.tracks[track.uuid] = track
            elif packet.sequence_flags & TracePacket.SEQ_INCREMENTAL_STATE_CLEARED:
                state[sequence] = State.of(packet)
            else:
                assert packet.timestamp >= clock[sequence]
                clock[sequence] = packet.timestamp
                viewer._event(packet, state[sequence], stacks[sequence])
        assert not any(stacks.values())
        return viewer

    def _event(self, packet: TracePacket, state: State, stack: list[Slice]) -> None:
        event, track = packet.track_event, self.tracks[state.track]
        if event.type == TrackEvent.TYPE_COUNTER:
            assert track.HasField("counter")
            self.counters[track.name].append((packet.timestamp, event.double_counter_value))
        elif event.type == TrackEvent.TYPE_SLICE_END:
            stack.pop().end_ns = packet.timestamp
        else:
            args: dict[str, object] = {}
            for one in event.debug_annotations:
                text = one.HasField("string_value_iid")
                value = state.texts[one.string_value_iid] if text else one.int_value
                args[state.labels[one.name_iid]] = value
            name, category = state.names[event.name_iid], state.categories[event.category_iids[0]]
            found = Slice(
                track, name, category, packet.timestamp, len(stack), args,
                list(event.flow_ids), list(event.terminating_flow_ids),
            )  # fmt: skip
            stack.append(found)
            self.slices.append(found)

    def on(self, of: Callable[[str], bool]) -> list[Slice]:
        """The slices of the tracks below a root track of such a name."""
        return [one for one in self.slices if of(self._root(one.track))]

    def _root(self, track: TrackDescriptor) -> str:
        while track.parent_uuid:
            track = self.tracks[track.parent_uuid]
        return track.name or track.process.process_name


def is_gpu(root: str) -> bool:
    return root.startswith("GPU")


def is_host(root: str) -> bool:
    return root.startswith("process")


def times(table: pd.DataFrame) -> Counter[tuple[str, int, int]]:
    columns = (table["name"].astype(str), table["start_ns"], table["end_ns"])
    return Counter(zip(*(column.tolist() for column in columns), strict=True))


def drawn(slices: list[Slice]) -> Counter[tuple[str, int, int]]:
    return Counter((one.name, one.start_ns, one.end_ns) for one in slices)


def write(trace: Trace, folder: Path, name: str = "t.pftrace") -> tuple[Viewer, Account]:
    acc = account(trace)
    return Viewer.open(perfetto.write(trace, acc, folder / name)), acc


def check_contents(viewer: Viewer, trace: Trace, acc: Account) -> None:
    gpu = viewer.on(is_gpu)
    idle = [one for one in gpu if one.track.name == "GPU idle (by cause)"]
    work = [one for one in gpu if one.track.name != "GPU idle (by cause)"]
    assert drawn(viewer.on(is_host)) == times(trace.api) + times(trace.ranges)
    assert drawn(work) == times(trace.work.assign(name=[short_name(one) for one in trace.work["name"]]))
    assert all(one.depth == 0 for one in gpu)
    for cause in CAUSES:
        lasted = sum(one.end_ns - one.start_ns for one in idle if one.name == cause)
        assert lasted == acc.devices[f"{cause}_ns"].sum()


@pytest.mark.parametrize(
    "recording", ["h200_eager_2025.3", "h200_eager_2023.4", "h200_graph", "h200_queue", "cpu_2023.4"]
)
def test_everything_recorded_is_drawn_once(
    recording: str, recorded: Callable[[str], Path], tmp_path: Path
) -> None:
    with Trace.open(recorded(recording)) as trace:
        check_contents(*write_with(trace, tmp_path))


def write_with(trace: Trace, folder: Path) -> tuple[Viewer, Trace, Account]:
    viewer, acc = write(trace, folder)
    return viewer, trace, acc


def test_an_arrow_leads_from_each_launch_to_its_first_work(
    recorded: Callable[[str], Path], tmp_path: Path
) -> None:
    with Trace.open(recorded("h200_graph")) as trace:
        viewer, _ = write(trace, tmp_path)
    begins = {flow: one for one in viewer.slices for flow in one.begins}
    ends = {flow: one for one in viewer.slices for flow in one.ends}
    assert len(begins) == 20 and begins.keys() == ends.keys()
    for flow, call in begins.items():
        assert call.name.startswith("cudaGraphLaunch") and call.start_ns < ends[flow].start_ns
        assert call.args["correlation"] == ends[flow].args["correlation"]
    nodes = [one for one in viewer.slices if "graph node" in one.args]
    assert len(nodes) == 320 and all(one.args["grid x block"] for one in nodes)
    assert all("::" in str(one.args["full name"]) or one.args["full name"] == one.name for one in nodes)


def test_a_piece_of_a_gap_tells_its_cause_and_what_was_around_it(
    recorded: Callable[[str], Path], tmp_path: Path
) -> None:
    with Trace.open(recorded("h200_eager_2025.3")) as trace:
        viewer, acc = write(trace, tmp_path)
    gap = acc.gaps.iloc[acc.gaps["dur_ns"].to_numpy()[1:-1].argmax() + 1]
    parts = [one for one in viewer.on(is_gpu) if gap["start_ns"] <= one.start_ns < gap["end_ns"]]
    assert parts[0].start_ns == gap["start_ns"] and parts[-1].end_ns == gap["end_ns"]
    for one in parts:
        assert one.name == one.category and one.name in CAUSES
        expected = {key: gap[key] for key in ("phase", "before", "after")} | {"ended by": gap["api"]}
        assert one.args == {**{k: v for k, v in expected.items() if pd.notna(v)}, "gap_ns": gap["dur_ns"]}


interval = st.tuples(st.integers(0, 30), st.integers(0, 12))


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    ranges=st.lists(st.tuples(interval, st.integers(1, 2)), max_size=8),
    calls=st.lists(st.tuples(interval, st.integers(1, 2)), max_size=8),
    kernels=st.lists(st.tuples(interval, st.integers(7, 8)), min_size=1, max_size=8),
)
def test_whatever_overlaps_is_drawn_whole(
    ranges: list[tuple[tuple[int, int], int]],
    calls: list[tuple[tuple[int, int], int]],
    kernels: list[tuple[tuple[int, int], int]],
    tmp_path: Path,
) -> None:
    export = Export()
    for number, ((start, length), thread) in enumerate(ranges):
        export.range(f"range {number}", start, start + length, thread=thread)
    for number, ((start, length), thread) in enumerate(calls):
        export.call(start, start + length, number, thread=thread)
    for number, ((start, length), stream) in enumerate(kernels):
        export.kernel(start, start + length, number, stream=stream, name=f"kernel {number}")
    with Trace.open(export.write(tmp_path / "t.sqlite")) as trace:
        check_contents(*write_with(trace, tmp_path))


def test_ranges_nest_around_calls_and_say_their_domain_and_payload(tmp_path: Path) -> None:
    export = Export()
    export.domain("library")
    export.range("outer — «ä»", 0, 100, payload=-5)
    export.range("inner", 10, 60, domain=0)
    export.call(20, 30, 1)
    export.kernel(40, 50, 1)
    with Trace.open(export.write(tmp_path / "t.sqlite")) as trace:
        viewer, _ = write(trace, tmp_path)
    host = viewer.on(is_host)
    assert [(one.name, one.category, one.depth) for one in host] == [
        ("outer — «ä»", "library", 0),
        ("inner", "NVTX", 1),
        ("cudaLaunchKernel", "CUDA call", 2),
    ]
    assert host[0].args == {"payload": -5} and host[1].args == {} and host[2].args == {"correlation": 1}


def test_a_domain_may_be_called_like_the_default_one(tmp_path: Path) -> None:
    export = Export()
    export.domain("NVTX")
    export.range("named", 0, 100)
    export.range("default", 10, 60, domain=0)
    with Trace.open(export.write(tmp_path / "t.sqlite")) as trace:
        viewer, _ = write(trace, tmp_path)
    assert [(one.name, one.category) for one in viewer.slices] == [("named", "NVTX"), ("default", "NVTX")]


def test_processes_of_several_machines_stay_apart_though_numbered_alike(tmp_path: Path) -> None:
    export = Export()
    for vm in (1, 2):
        export.call(10, 90, 1, vm=vm)
        export.kernel(100, 200, 1, vm=vm)
    with Trace.open(export.write(tmp_path / "t.sqlite")) as trace:
        viewer, _ = write(trace, tmp_path)
    processes = [track.process for track in viewer.tracks.values() if track.HasField("process")]
    threads = [track.thread for track in viewer.tracks.values() if track.HasField("thread")]
    assert len({one.pid for one in processes}) == len({one.tid for one in threads}) == 2
    assert [one.process_name for one in processes] == ["process 1", "process 1"]
    assert sum("process 1, context 1" in track.name for track in viewer.tracks.values()) == 2


def test_a_long_trace_written_in_pieces_is_the_same(
    recorded: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Trace.open(recorded("h200_eager_2025.3")) as trace:
        whole, _ = write(trace, tmp_path)
        monkeypatch.setattr(packets, "_CHUNK", 997)
        monkeypatch.setattr("analysis.perfetto.tracks._GAPS", 211)
        assert write(trace, tmp_path)[0].slices == whole.slices


def test_a_compressed_trace_is_the_same_every_time(recorded: Callable[[str], Path], tmp_path: Path) -> None:
    with Trace.open(recorded("h200_graph")) as trace:
        plain = perfetto.write(trace, account(trace), tmp_path / "a.perfetto-trace")
        packed = [perfetto.write(trace, account(trace), tmp_path / f"{name}.pftrace.gz") for name in "ab"]
    assert gzip.decompress(packed[0].read_bytes()) == plain.read_bytes()
    assert packed[0].read_bytes() == packed[1].read_bytes()


def test_gpu_metrics_become_counters_and_missing_values_stay_missing(tmp_path: Path) -> None:
    export = Export()
    export.kernel(0, 100, 1)
    time = np.array([0, 10, 20])
    samples = [Samples(0, time, time + 10, 10, {"dram_read_pct": np.array([12.5, np.nan, 80.0])})]
    with Trace.open(export.write(tmp_path / "t.sqlite")) as trace:
        path = perfetto.write(trace, account(trace), tmp_path / "t.pftrace", samples)
    assert Viewer.open(path).counters == {"DRAM read %": [(0, 12.5), (20, 80.0)]}


def test_the_command_draws_a_traces_own_metrics_beside_the_kernels_that_made_them(tmp_path: Path) -> None:
    """The clock of the metrics is ahead by 12 µs."""
    path = traced(tmp_path / "t.sqlite", offset_ns=12_000)
    assert main(["export", str(path), "--perfetto", "--out", str(tmp_path / "t.pftrace")]) == 0
    counters = Viewer.open(tmp_path / "t.pftrace").counters
    assert set(counters) == {"DRAM read %", "DRAM write %", "SM issue %", "tensor active %"}
    times = np.array([time for time, _ in counters["DRAM read %"]])
    late = (times + PERIOD_NS // 2) % PERIOD_NS - PERIOD_NS // 2  # sampled at whole periods
    assert len(times) > 100 and np.abs(late).max() <= 300


def test_a_trace_without_anything_to_draw_is_refused(recorded: Callable[[str], Path], tmp_path: Path) -> None:
    with Trace.open(recorded("cpu_new_nvtx")) as trace, pytest.raises(TraceError, match="nothing to draw"):
        write(trace, tmp_path)
    assert not list(tmp_path.iterdir())
