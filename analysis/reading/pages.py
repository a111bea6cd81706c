"""Integer columns straight from the pages of an SQLite file, several times faster than through SQL.

Reading an export is most of the work of analysing it: SQLite hands over every row one by one. A table is a
B-tree whose leaf pages hold the rows; the format is public and frozen (https://www.sqlite.org/fileformat2.html,
sections 1.6 and 2.1). Whatever is unusual here raises NotPlain, and the caller asks SQLite instead.
"""

from __future__ import annotations

import os
import sqlite3
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import BinaryIO, TypeVar

import numpy as np
import numpy.typing as npt

from analysis.engine.compiled import loop_for
from analysis.engine.intervals import Ints
from analysis.engine.parallel import threads

MISSING = np.iinfo(np.int64).min  # NULL

Digest = TypeVar("Digest")
_Bytes = npt.NDArray[np.uint8]
_INTERIOR, _LEAF = 5, 13
_CHUNK_BYTES = 1 << 20
_SLACK_BYTES = 32  # a damaged row may be looked at beyond the last page, but no further
_WAL = 2  # file format version of a database whose newest rows may be in another file


class NotPlain(Exception):
    """Something that only SQLite itself should read."""


def integers(
    path: Path,
    connection: sqlite3.Connection,
    table: str,
    columns: Sequence[str],
    digest: Callable[[Ints], Digest],
    rows: int,
) -> Iterator[Digest]:
    """What `digest` makes of these columns of all rows, chunk by chunk in the order of the rows.

    A chunk has shape [columns, rows]; MISSING where a row holds NULL, and for a column that the table doesn't
    have. `digest` runs in several threads; the chunk's memory is used again afterwards, so it must keep none.
    `rows`: about how many there are. Raises NotPlain, before the first chunk or later, if the file or the
    table is not of the simplest kind.
    """
    root, positions = _locate(connection, table, columns)
    with path.open("rb", buffering=0) as file:
        page_size, usable = _header(file)
        for suffix in ("-wal", "-journal"):
            if Path(f"{path}{suffix}").exists():
                raise NotPlain(f"the database has a {suffix} file")
        leaves = _leaves(file, root, page_size)
        decoder = _Decoder(loop_for(_decode, rows), file, page_size, usable, positions)
        per_chunk = _CHUNK_BYTES // page_size
        # Decoding needs no interpreter lock: threads share it, a few chunks ahead of the caller.
        with ThreadPoolExecutor(threads()) as workers:
            coming: deque[Future[Digest]] = deque()
            for first in range(0, len(leaves), per_chunk):
                coming.append(workers.submit(decoder.chunk, leaves[first : first + per_chunk], digest))
                if len(coming) > 2 * threads():
                    yield coming.popleft().result()
            while coming:
                yield coming.popleft().result()


class _Memory:
    """Arrays of one worker that grow and are used again: fresh pages cost as much as decoding into them."""

    def __init__(self) -> None:
        self._pages = np.empty(0, dtype=np.uint8)
        self._cells = np.empty(0, dtype=np.int64)

    def pages(self, size: int) -> _Bytes:
        if len(self._pages) < size:
            self._pages = np.empty(size + _SLACK_BYTES, dtype=np.uint8)
        return self._pages[:size]

    def table(self, columns: int, rows: int) -> Ints:
        if len(self._cells) < columns * rows:
            self._cells = np.empty(columns * rows * 5 // 4, dtype=np.int64)
        return self._cells[: columns * rows].reshape(columns, rows)


@dataclass(frozen=True)
class _Decoder:
    """Decodes leaf pages of one table. positions [columns]: where in a row each column is, -1 for nowhere."""

    decode: Callable[..., int]
    file: BinaryIO
    page_size: int
    usable: int
    positions: Ints
    _spare: SimpleQueue[_Memory] = field(default_factory=SimpleQueue)

    def chunk(self, numbers: Ints, digest: Callable[[Ints], Digest]) -> Digest:
        """What `digest` makes of the rows in the leaf pages with these numbers."""
        memory = _Memory() if self._spare.empty() else self._spare.get()
        found = digest(self._rows(numbers, memory))
        self._spare.put(memory)
        return found

    def _rows(self, numbers: Ints, memory: _Memory) -> Ints:
        pages = memory.pages(len(numbers) * self.page_size)
        _read(self.file, numbers, self.page_size, pages)
        head = np.where(numbers == 1, 100, 0) + np.arange(len(numbers)) * self.page_size
        if not (pages[head] == _LEAF).all():
            raise NotPlain("a leaf that isn't one")
        rows = pages[head + 3].astype(np.int64) * 256 + pages[head + 4]
        out = memory.table(len(self.positions), int(rows.sum()))
        out[self.positions < 0] = MISSING
        target = np.full(self.positions.max() + 1, -1, dtype=np.int64)
        known = np.flatnonzero(self.positions >= 0)
        target[self.positions[known]] = known
        tables = *_serial_types(), target
        decoded = self.decode(pages, head, rows, self.page_size, self.usable, *tables, out)
        if decoded != out.shape[1]:
            raise NotPlain("a row with overflow pages, with values that are no integers, or damaged")
        return out


def _locate(connection: sqlite3.Connection, table: str, columns: Sequence[str]) -> tuple[int, Ints]:
    """The table's root page and the positions of the columns in a row, -1 for those that it doesn't have."""
    (root, sql) = connection.execute(
        "SELECT rootpage, sql FROM sqlite_master WHERE type = 'table' AND name = ?", (table,)
    ).fetchone()
    info = connection.execute(f'PRAGMA table_xinfo("{table}")').fetchall()
    place = {row[1]: row for row in info}
    if not root or "WITHOUT ROWID" in sql.upper() or any(row[6] for row in info):
        raise NotPlain("no ordinary table")
    wanted = [place[name] for name in columns if name in place]
    # A row identifier is not stored in its column, nor is what was added to the table after the row.
    if any(row[5] or row[4] is not None for row in wanted):
        raise NotPlain("a primary key or a default value")
    return root, np.array([place[name][0] if name in place else -1 for name in columns], dtype=np.int64)


def _header(file: BinaryIO) -> tuple[int, int]:
    """Page size and usable bytes per page."""
    head = file.read(100)
    if head[18] == _WAL or head[19] == _WAL:
        raise NotPlain("write-ahead log")
    page_size = int.from_bytes(head[16:18], "big")
    page_size = 65536 if page_size == 1 else page_size
    return page_size, page_size - head[20]


def _leaves(file: BinaryIO, root: int, page_size: int) -> Ints:
    """Page numbers of the leaves below `root`, in the order of their rows."""
    level = np.array([root], dtype=np.int64)
    while True:
        if _page(file, int(level[0]), page_size)[100 if level[0] == 1 else 0] == _LEAF:
            return level
        level = np.concatenate([_children(file, int(number), page_size) for number in level])
        if len(level) == 0:
            raise NotPlain("an interior page without children")


def _children(file: BinaryIO, number: int, page_size: int) -> Ints:
    page = _page(file, number, page_size)
    head = 100 if number == 1 else 0
    if page[head] != _INTERIOR:
        raise NotPlain("a tree whose leaves lie at different depths")
    cells = int.from_bytes(page[head + 3 : head + 5].tobytes(), "big")
    pointers = page[head + 12 : head + 12 + 2 * cells].reshape(-1, 2).astype(np.int64) @ (256, 1)
    left = page[pointers[:, None] + np.arange(4)].astype(np.int64) @ (1 << 24, 1 << 16, 1 << 8, 1)
    right = int.from_bytes(page[head + 8 : head + 12].tobytes(), "big")
    return np.append(left, right)


def _page(file: BinaryIO, number: int, page_size: int) -> _Bytes:
    page = np.empty(page_size, dtype=np.uint8)
    _read(file, np.array([number]), page_size, page)
    return page


def _read(file: BinaryIO, numbers: Ints, page_size: int, buffer: _Bytes) -> None:
    """Fill the buffer with the pages with these numbers; neighbours in the file are read together."""
    view = memoryview(buffer)  # type: ignore[arg-type]
    ends = np.append(np.flatnonzero(np.diff(numbers) != 1) + 1, len(numbers))
    begin = 0
    for end in ends.tolist():
        into = view[begin * page_size : end * page_size]
        if os.preadv(file.fileno(), [into], (int(numbers[begin]) - 1) * page_size) != len(into):
            raise NotPlain("the file ends too early")
        begin = end


def _serial_types() -> tuple[Ints, Ints]:
    """Of the serial types below 128, the bytes that a value takes, and the value of those that take none.

    They are NULL, integers of 1 to 8 bytes, a float, 0, 1, two that are reserved, blobs and texts.
    """
    widths = [0, 1, 2, 3, 4, 6, 8, 8, 0, 0, 0, 0, *((kind - 12) // 2 for kind in range(12, 128))]
    return np.array(widths), np.array([MISSING, *[0] * 8, 1, *[0] * 118])


def _decode(
    pages: _Bytes, head: Ints, rows: Ints, page_size: int, usable: int, widths: Ints, fixed: Ints,
    target: Ints, out: Ints,
) -> int:  # fmt: skip
    """Decode the cells of leaf pages: the i-th column goes into out[target[i]], or nowhere for -1.

    `head` [pages] is where each page's header starts in `pages`, `rows` [pages] its number of cells; `widths`
    and `fixed` are those of `_serial_types`. Returns the number of rows decoded; fewer than asked for if one
    can't be. Unsigned positions spare the check for negative ones, which costs as much as the rest.
    """
    one, eight = np.uint64(1), np.uint64(8)
    row = 0
    for page in range(len(head)):
        start = page * page_size
        if head[page] - start + 8 + 2 * rows[page] > page_size:
            return row
        for cell in range(rows[page]):
            pointer = np.uint64(head[page] + 8 + 2 * cell)
            at = np.uint64(start + (np.int64(pages[pointer]) << 8 | np.int64(pages[pointer + one])))
            size = np.int64(0)
            for _ in range(9):  # payload size
                byte = np.int64(pages[at])
                at += one
                size = size << 7 | (byte & 127)
                if byte < 128:
                    break
            if size > usable - 35:  # the rest is on overflow pages
                return row
            for _ in range(9):  # row identifier
                byte = np.int64(pages[at])
                at += one
                if byte < 128:
                    break
            limit = at + np.uint64(size)
            if at < np.uint64(start + 8) or limit > np.uint64(start + page_size):
                return row
            key = at
            body = np.int64(pages[key])
            key += one
            if body >= 128:
                body = (body & 127) << 7 | np.int64(pages[key])
                key += one
            value = end = at + np.uint64(body)
            if end > limit:
                return row
            for column in range(len(target)):
                place = target[column]
                if key >= end:  # the row is older than this column
                    if place >= 0:
                        out[place, row] = fixed[0]
                    continue
                kind = np.int64(pages[key])
                key += one
                if kind >= 128:
                    kind = kind & 127
                    byte = np.int64(128)
                    while byte >= 128 and key < end:
                        byte = np.int64(pages[key])
                        key += one
                        kind = kind << 7 | (byte & 127)
                    width = (kind - 12) // 2
                    if width < 0 or width > size:
                        return row
                else:
                    width = widths[kind]
                value += np.uint64(width)
                if value > limit:
                    return row
                if place < 0:
                    continue
                if kind > 9 or kind == 7:
                    return row
                if width == 0:
                    out[place, row] = fixed[kind]
                    continue
                # The eight bytes before the value's end are one load; those before its start are shifted out.
                first = value - eight
                number = np.int64(pages[first]) << 56
                number |= np.int64(pages[first + np.uint64(1)]) << 48
                number |= np.int64(pages[first + np.uint64(2)]) << 40
                number |= np.int64(pages[first + np.uint64(3)]) << 32
                number |= np.int64(pages[first + np.uint64(4)]) << 24
                number |= np.int64(pages[first + np.uint64(5)]) << 16
                number |= np.int64(pages[first + np.uint64(6)]) << 8
                number |= np.int64(pages[first + np.uint64(7)])
                unused = 64 - 8 * width
                out[place, row] = number << unused >> unused
            row += 1
    return row
