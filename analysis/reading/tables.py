"""The large tables of an export, work and calls, as compact columns: a row of work takes some 35 bytes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, TypeAlias

import numpy as np
import pandas as pd

from analysis.engine.grouping import Codes, Groups, Numbered, numbered, smallest, zero_column
from analysis.engine.intervals import Ints
from analysis.reading import schema
from analysis.reading.export import Export
from analysis.reading.order import Column, in_order, taken
from analysis.reading.pages import MISSING
from analysis.reading.times import LeftOut, longest_ns, with_times

Label = Callable[[int], str]
Distinct: TypeAlias = list[tuple[int, ...]]


# What tells apart work that starts together: all else, for the order of the file must decide nothing.
_WORK_ORDER = (
    "end_ns", "stream", "process", "correlation", "graph_node", "context", "kind", "name", "shape"
)  # fmt: skip


class Rows(NamedTuple):
    """A table, and what was left out of it by kind of row."""

    table: pd.DataFrame
    left_out: list[LeftOut]


@dataclass(frozen=True)
class _Part:
    """Some rows of a table: columns of numbers, and columns that stand for distinct rows of something; how
    many rows were left out, by their flaw."""

    numbers: dict[str, np.ndarray]
    groups: dict[str, Numbered]
    flaws: Counter[str]

    def __len__(self) -> int:
        return len(next(iter(self.numbers.values())))


class _Columns:
    """Columns that are filled from the front; memory that is never reached is never taken."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._filled = 0
        self._columns: dict[str, np.ndarray] = {}
        self._groups: dict[str, Groups] = {}

    def add(self, part: _Part) -> None:
        """One more value or several of each column."""
        chunk = dict(part.numbers)
        for name, rows in part.groups.items():
            chunk[name] = smallest(self._groups.setdefault(name, Groups()).recode(rows))
        until = self._filled + len(part)
        if until > self._room:
            self._room = 2 * until
        for name, values in chunk.items():
            self._roomy(name, values.dtype)[self._filled : until] = values
        self._filled = until

    def _roomy(self, name: str, dtype: np.dtype) -> np.ndarray:
        """The column, made longer and of a wider type if it has to be."""
        old = self._columns.get(name, np.empty(0, dtype=dtype))
        if len(old) < self._room or not np.can_cast(dtype, old.dtype):
            self._columns[name] = zero_column(self._room, np.promote_types(old.dtype, dtype))
            self._columns[name][: self._filled] = old[: self._filled]
        return self._columns[name]

    def take(self, name: str, dtype: type = np.int64) -> np.ndarray:
        """The whole column, which is then forgotten here."""
        return self._columns.pop(name, np.empty(0, dtype=dtype))[: self._filled]

    def take_group(self, name: str) -> tuple[Distinct, Codes]:
        """The distinct rows that the column stands for, and which of them each value is."""
        return self._groups.get(name, Groups()).rows, self.take(name, np.int32)


def read_work(export: Export, string: Label, gpu_of: Callable[[int, int], int]) -> Rows:
    """See `Trace.work`. `string` looks a name up, `gpu_of` the GPU behind a process's device id."""
    left_out, longest = [], longest_ns(export)
    columns = _Columns(sum(export.rows_at_most(table) for table in schema.WORK_TABLES.values()))
    for number, (kind, table) in enumerate(schema.WORK_TABLES.items()):
        names, shape = schema.NAMES[kind], schema.SHAPE if kind == "kernel" else ()
        wanted = [*schema.WORK_COLUMNS, *names, *shape]
        digest = partial(_work, kind=number, names=len(names), longest=longest)
        left_out.append(_read(columns, export, table, wanted, digest, kind))
    places, place = columns.take_group("place")
    identities, identity = columns.take_group("identity")
    nodes, node = columns.take_group("graph_node")
    work: dict[str, Column] = {
        **_places(places, place, gpu_of),
        "correlation": columns.take("correlation", np.int32),
        **_identities(identities, identity, string),
        "start_ns": columns.take("start_ns"),
        "end_ns": columns.take("end_ns"),
        "graph_node": _categories([None if row[0] == MISSING else row[0] for row in nodes], node),
    }
    return Rows(in_order(work, "device", _WORK_ORDER), left_out)


def _read(
    columns: _Columns, export: Export, table: str, wanted: Sequence[str], digest: Callable[[Ints], _Part],
    kind: str,
) -> LeftOut:  # fmt: skip
    """Add all rows of a table to the columns; returns what was left out."""
    export.require(table, "start", "end")
    left_out = LeftOut(kind)
    for part in export.integers(table, wanted, digest):
        columns.add(part)
        left_out.flaws += part.flaws
        left_out.rows += len(part) + part.flaws.total()
    return left_out


def _work(chunk: Ints, kind: int, names: int, longest: int) -> _Part:
    """Of WORK_COLUMNS, NAMES and, for kernels, SHAPE; compact, so that little of a chunk is kept."""
    chunk, flaws = with_times(chunk, schema.WORK_COLUMNS.index("start"), longest)
    owner, device, context, stream, correlation, start, end, node = chunk[:8]
    name = _first_known(chunk[8 : 8 + names], chunk.shape[1])
    what = numbered(name, *chunk[8 + names :])
    return _Part(
        {"start_ns": start.copy(), "end_ns": end.copy(), "correlation": _identifier(correlation)},
        {
            "place": numbered(owner, device, context, stream),
            "identity": Numbered(what.code, [(kind, *row) for row in what.rows]),
            "graph_node": numbered(node),
        },
        flaws,
    )


def read_api(export: Export, string: Label) -> Rows:
    """See `Trace.api`."""
    columns = _Columns(export.rows_at_most(schema.API_TABLE))
    digest = partial(_api, longest=longest_ns(export))
    left_out = _read(columns, export, schema.API_TABLE, schema.API_COLUMNS, digest, "CUDA call")
    threads, thread = columns.take_group("thread")
    calls, call = columns.take_group("name")
    owners = [row[0] for row in threads]
    api: dict[str, Column] = {
        "process": _categories([owner & ~schema.THREAD_BITS for owner in owners], thread),
        "thread": _categories(owners, thread),
        "correlation": columns.take("correlation", np.int32),
        "name": _categories([_call_name(string(row[0])) for row in calls], call),
        "start_ns": columns.take("start_ns"),
        "end_ns": columns.take("end_ns"),
    }
    return Rows(in_order(api, "thread", ["end_ns", "correlation"]), [left_out])


def _api(chunk: Ints, longest: int) -> _Part:
    chunk, flaws = with_times(chunk, schema.API_COLUMNS.index("start"), longest)
    thread, correlation, start, end, name = chunk
    return _Part(
        {"start_ns": start.copy(), "end_ns": end.copy(), "correlation": _identifier(correlation)},
        {"thread": numbered(thread), "name": numbered(name)},
        flaws,
    )


def _places(places: Distinct, code: Codes, gpu_of: Callable[[int, int], int]) -> dict[str, Column]:
    rows = [tuple(-1 if value == MISSING else value for value in row) for row in places]
    device = [gpu_of(owner, device) for owner, device, _, _ in rows]
    return {
        "process": _categories([row[0] for row in rows], code),
        "device": _looked_up(device, code),
        "context": _looked_up([row[2] for row in rows], code),
        "stream": _looked_up([row[3] for row in rows], code),
    }


def _identities(identities: Distinct, code: Codes, string: Label) -> dict[str, Column]:
    """kind, name and shape of each distinct piece of work, and then of each row."""
    names, shapes, which = [], [], []
    for kind, name, *shape in identities:
        which.append(list(schema.WORK_TABLES)[kind])
        label = schema.WORK_LABELS.get(which[-1])
        names.append(label(name) if label else string(name) or "(unnamed kernel)")
        shapes.append("({},{},{})x({},{},{})".format(*shape) if shape and MISSING not in shape else "")
    return {
        "kind": _categories(which, code, list(schema.WORK_TABLES)),
        "name": _categories(names, code),
        "shape": _categories(shapes, code),
    }


def _categories(
    values: Sequence[object], code: Codes, categories: Sequence[object] | None = None
) -> pd.Categorical:
    """values[code] as a categorical with sorted categories; None is NA."""
    known = sorted({value for value in values if value is not None}) if categories is None else categories  # type: ignore[type-var]
    place = {value: n for n, value in enumerate(known)}
    own = smallest(np.array([place.get(value, -1) for value in values], dtype=np.int64))
    index: pd.Index = pd.Index(np.array(known, dtype=_kind_of(known)))
    return pd.Categorical.from_codes(taken(own, code), index)


def _kind_of(values: Sequence[object]) -> type:
    return np.int64 if values and isinstance(values[0], int) else object


def _looked_up(values: Sequence[int], code: Codes) -> np.ndarray:
    return taken(smallest(np.array(values, dtype=np.int64)), code)


def _first_known(candidates: Ints, rows: int) -> Ints:
    """The first of several columns that isn't missing; zeros if there is none to choose from."""
    if len(candidates) == 0:
        return np.zeros(rows, dtype=np.int64)
    name = candidates[0].copy()
    for other in candidates[1:]:
        if not (missing := name == MISSING).any():
            break
        name[missing] = other[missing]
    return name


def _identifier(correlation: Ints) -> np.ndarray:
    """Correlation ids in 32 bits, -1 for none."""
    return np.where(correlation == MISSING, -1, correlation).astype(np.int32)


def _call_name(name: str) -> str:
    """`cudaLaunchKernel_v7000` is the runtime's own spelling of a versioned entry point."""
    return re.sub(r"_v\d+$", "", name) or "(unnamed call)"
