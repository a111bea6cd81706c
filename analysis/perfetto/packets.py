"""Perfetto packets, written by the hundred thousand.

A message object per packet would take minutes for a long trace. But packets of one kind differ only in a few
numbers, and protobuf lets a number be written in more bytes than it needs (as Perfetto itself does with
lengths). So one message is made per kind, as the schema wants it, and NumPy writes the numbers into copies.

The format: https://perfetto.dev/docs/reference/synthetic-track-event
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pandas as pd
from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import (
    DebugAnnotation,
    InternedData,
    Trace,
    TracePacket,
    TrackDescriptor,
    TrackEvent,
)

from analysis.engine.intervals import Ints

_Bytes = npt.NDArray[np.uint8]

_CHUNK = 1 << 17  # packets held in memory at once
_CLEARED, _NEEDS_STATE = TracePacket.SEQ_INCREMENTAL_STATE_CLEARED, TracePacket.SEQ_NEEDS_INCREMENTAL_STATE
_FLOWS = {"flow_begins": "flow_ids", "flow_ends": "terminating_flow_ids"}
_FIXED = 0  # width of eight bytes as they are, instead of a varint
_MIN_WIDTH = 3  # what is shorter could occur in a packet by chance
_EXPLICIT = TrackDescriptor.EXPLICIT


class Template:
    """A packet of constant length with places for numbers.

    `mark` reserves a place and returns the number to put there: its encoding occurs nowhere else.
    """

    def __init__(self) -> None:
        self._marks: list[tuple[bytes, int, Ints]] = []
        self._raw = b""

    def mark(self, values: Ints, width: int) -> int:
        """For `values` [packets] as a varint of `width` bytes (10 if any is negative), or _FIXED."""
        digit = len(self._marks)
        if width == _FIXED:
            pattern = bytes([0xC0 + digit] * 8)
            self._marks.append((pattern, width, values))
            return int.from_bytes(pattern, "little")
        last = 0x40 + digit if width < 10 else 1
        self._marks.append((bytes([0xC0 + digit] * (width - 1) + [last]), width, values))
        number = sum(0x40 + digit << 7 * place for place in range(width - 1)) + (last << 7 * (width - 1))
        return number - (1 << 64) if width == 10 else number

    def records(self, packet: TracePacket) -> _Bytes:
        """The packets as they stand in a file: shape [packets, bytes of each]."""
        raw = Trace(packet=[packet]).SerializeToString()
        records = np.empty((len(self._marks[0][2]), len(raw)), dtype=np.uint8)
        records[:] = np.frombuffer(raw, dtype=np.uint8)
        for pattern, width, values in self._marks:
            (at,) = (found for found in range(len(raw)) if raw.startswith(pattern, found))
            bits = np.ascontiguousarray(values).view(np.uint64)
            if width == _FIXED:
                records[:, at : at + 8] = bits.astype("<u8")[:, None].view(np.uint8)
                continue
            for place in range(width):
                more = 0x80 if place < width - 1 else 0
                records[:, at + place] = (bits >> np.uint64(7 * place) & np.uint64(0x7F)) | np.uint64(more)
        return records


class PacketWriter:
    """Writes tracks, and slices or counters on them, in the order of the calls."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._tracks = 0

    def track(self, name: str = "", parent: int = 0, rank: int = 0, **kind: Any) -> int:
        """A new track, shown under its parent by rising rank; `kind`: process=, thread= or counter=.

        Returns its id. Siblings of one name are lanes of what the viewer shows as one track.
        """
        self._tracks += 1
        descriptor = TrackDescriptor(
            uuid=self._tracks, sibling_order_rank=rank, child_ordering=_EXPLICIT, **kind
        )
        if name:
            descriptor.name = name
        if parent:
            descriptor.parent_uuid = parent
        self._write(TracePacket(track_descriptor=descriptor, trusted_packet_sequence_id=self._tracks))
        return self._tracks

    def slices(
        self, track: int, start_ns: Ints, end_ns: Ints, describe: Callable[[Ints], pd.DataFrame]
    ) -> None:
        """Slices that nest properly, outer ones before inner ones: shapes [slices].

        `describe(rows)` gives name and category (categories) of some slices, optionally flow_begins and
        flow_ends (Int64), and any other column as an argument (categories or Int64). NA is left out.
        """
        row, ends = event_order(start_ns, end_ns)
        for first in range(0, len(row), _CHUNK):
            part, is_end = row[first : first + _CHUNK], ends[first : first + _CHUNK]
            begins = part[~is_end]
            closing = Template()
            packet = self._event(track, _mark(closing, end_ns[part[is_end]]), TrackEvent.TYPE_SLICE_END)
            pieces = [(np.flatnonzero(is_end), closing.records(packet))]
            opening = np.flatnonzero(~is_end)
            for rows, records in self._begins(track, start_ns[begins], describe(begins)):
                pieces.append((opening[rows], records))
            self._file.write(_interleaved(pieces, len(part)))

    def counter(self, track: int, time_ns: Ints, value: npt.NDArray[np.float64]) -> None:
        """A counter's values, by rising time: shapes [samples]."""
        self._state(track, InternedData())
        for first in range(0, len(time_ns), _CHUNK):
            part = slice(first, first + _CHUNK)
            template = Template()
            packet = self._event(track, _mark(template, time_ns[part]), TrackEvent.TYPE_COUNTER)
            marked = template.mark(np.ascontiguousarray(value[part]).view(np.int64), _FIXED)
            packet.track_event.double_counter_value = np.array([marked], np.uint64).view(np.float64)[0]
            self._file.write(template.records(packet).tobytes())

    def _begins(self, track: int, start_ns: Ints, described: pd.DataFrame) -> Iterable[tuple[Ints, _Bytes]]:
        """(rows, packets) for each set of columns that is present together."""
        interned = InternedData()
        codes = {
            "name": _intern(interned.event_names, described["name"]),
            "category": _intern(interned.event_categories, described["category"]),
        }
        arguments = [str(column) for column in described if column not in {*codes, *_FLOWS}]
        for number, column in enumerate(arguments):
            interned.debug_annotation_names.add(iid=number + 1, name=column)
            if isinstance(described[column].dtype, pd.CategoricalDtype):
                codes[column] = _intern(interned.debug_annotation_string_values, described[column])
        self._state(track, interned)
        optional = np.array([column for column in described if column not in ("name", "category")])
        present = described[optional].notna().to_numpy()
        patterns, pattern = np.unique(present @ (1 << np.arange(len(optional))), return_inverse=True)
        for code in range(len(patterns)):
            rows = np.flatnonzero(pattern == code)
            here = optional[present[rows[0]]].tolist()
            template = Template()
            packet = self._event(track, _mark(template, start_ns[rows]), TrackEvent.TYPE_SLICE_BEGIN)
            event = packet.track_event
            event.name_iid = _mark(template, codes["name"][rows])
            event.category_iids.append(_mark(template, codes["category"][rows]))
            for column in here:
                if column in _FLOWS:
                    flow = described[column].iloc[rows].to_numpy(dtype=np.int64)
                    getattr(event, _FLOWS[column]).append(template.mark(flow, _FIXED))
                    continue
                argument = DebugAnnotation(name_iid=arguments.index(column) + 1)
                if column in codes:
                    argument.string_value_iid = _mark(template, codes[column][rows])
                else:
                    values = described[column].iloc[rows].to_numpy(dtype=np.int64)
                    argument.int_value = _mark(template, values)
                event.debug_annotations.append(argument)
            yield rows, template.records(packet)

    def _event(self, track: int, timestamp: int, kind: TrackEvent.Type.ValueType) -> TracePacket:
        return TracePacket(
            timestamp=timestamp,
            trusted_packet_sequence_id=track,
            sequence_flags=_NEEDS_STATE,
            track_event=TrackEvent(type=kind),
        )

    def _state(self, track: int, interned: InternedData) -> None:
        """What the packets that follow refer to: their strings and their track."""
        packet = TracePacket(
            trusted_packet_sequence_id=track, sequence_flags=_CLEARED, interned_data=interned
        )
        packet.trace_packet_defaults.track_event_defaults.track_uuid = track
        self._write(packet)

    def _write(self, packet: TracePacket) -> None:
        self._file.write(Trace(packet=[packet]).SerializeToString())


def event_order(start_ns: Ints, end_ns: Ints) -> tuple[Ints, npt.NDArray[np.bool_]]:
    """Which slice begins or ends (and which of both) at each event, in order of time: shapes [2 × slices].

    At one time what had begun before ends first, inner before outer, then what follows begins; a slice
    without duration ends right after its beginning.
    """
    count = len(start_ns)
    rank = np.arange(count)
    empty = start_ns == end_ns
    time = np.concatenate([start_ns, end_ns])
    later = np.concatenate([np.ones(count, dtype=np.int64), empty.astype(np.int64)])
    place = np.concatenate([2 * rank, np.where(empty, 2 * rank + 1, -rank)])
    order = np.lexsort((place, later, time))
    return order % max(count, 1), order >= count


def _intern(strings: Any, column: pd.Series) -> Ints:
    """Adds the labels that occur to a message's strings; the id of each row's, 0 where it has none."""
    labels = column.cat.categories
    codes = column.cat.codes.to_numpy(dtype=np.int64)
    used = np.unique(codes[codes >= 0])
    for code in used.tolist():
        entry = strings.add(iid=len(strings) + 1)
        if entry.DESCRIPTOR.name == "InternedString":
            entry.str = str(labels[code]).encode()
        else:
            entry.name = str(labels[code])
    first = len(strings) - len(used) + 1
    return np.where(codes >= 0, first + np.searchsorted(used, codes), 0)


def _mark(template: Template, values: Ints) -> int:
    """A place of the width that the largest value needs."""
    width = 10 if values.min(initial=0) < 0 else -(-int(values.max(initial=0)).bit_length() // 7)
    return template.mark(values, max(width, _MIN_WIDTH))


def _interleaved(pieces: Sequence[tuple[Ints, _Bytes]], packets: int) -> bytes:
    """Packets of several lengths in the order of their places: (places, bytes [places, length]) each."""
    length = np.empty(packets, dtype=np.int64)
    for place, records in pieces:
        length[place] = records.shape[1]
    begin = np.cumsum(length) - length
    out = np.empty(int(length.sum()), dtype=np.uint8)
    for place, records in pieces:
        out[begin[place][:, None] + np.arange(records.shape[1])] = records
    return out.tobytes()
