"""Integer columns straight from the pages of an SQLite file, several times faster than through SQL.

Reading an export is most of the work of analysing it: SQLite hands over every row one by one. A table is a
B-tree whose leaf pages hold the rows; the format is public and frozen (https://www.sqlite.org/fileformat2.html,
sections 1.6 and 2.1). Whatever is unusual here raises NotPlain, and the caller asks SQLite instead.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from analysis.compiled import loop_for
from analysis.intervals import Ints

MISSING = np.iinfo(np.int64).min  # NULL

_Bytes = npt.NDArray[np.uint8]
_INTERIOR, _LEAF = 5, 13
_CHUNK_BYTES = 4 << 20
_WAL = 2  # file format version of a database whose newest rows may be in another file


class NotPlain(Exception):
    """Something that only SQLite itself should read."""


def integers(
    path: Path, connection: sqlite3.Connection, table: str, columns: Sequence[str]
) -> Iterator[Ints]:
    """These columns of all rows, in chunks [columns, rows]; MISSING where a row holds NULL.

    Raises NotPlain, before the first chunk or later, if the file or the table is not of the simplest kind.
    """
    root, positions = _locate(connection, table, columns)
    with path.open("rb", buffering=0) as file:
        page_size, usable = _header(file)
        for suffix in ("-wal", "-journal"):
            if Path(f"{path}{suffix}").exists():
                raise NotPlain(f"the database has a {suffix} file")
        leaves = _leaves(file, root, page_size)
        per_chunk = _CHUNK_BYTES // page_size
        parts = [leaves[first : first + per_chunk] for first in range(0, len(leaves), per_chunk)]
        # The next chunk is decoded, without the interpreter's lock, while the caller works on this one.
        with ThreadPoolExecutor(1) as ahead:
            coming = [ahead.submit(_chunk, file, part, page_size, usable, positions) for part in parts[:1]]
            for part in [*parts[1:], None]:
                chunk = coming.pop().result()
                if part is not None:
                    coming.append(ahead.submit(_chunk, file, part, page_size, usable, positions))
                yield chunk


def _chunk(file: BinaryIO, numbers: Ints, page_size: int, usable: int, positions: Ints) -> Ints:
    """The columns at these positions, of the rows in these leaf pages."""
    pages = _read(file, numbers, page_size)
    head = np.where(numbers == 1, 100, 0) + np.arange(len(numbers)) * page_size
    if not (pages[head] == _LEAF).all():
        raise NotPlain("a leaf that isn't one")
    rows = pages[head + 3].astype(np.int64) * 256 + pages[head + 4]
    out = np.empty((len(positions), int(rows.sum())), dtype=np.int64)
    order = np.argsort(positions)
    decode = loop_for(_decode, out.shape[1])
    decoded = decode(pages, head, rows, page_size, usable, _widths(), positions[order], order, out)
    if decoded != out.shape[1]:
        raise NotPlain("a row with overflow pages, or with values that are no integers")
    return out


def _locate(connection: sqlite3.Connection, table: str, columns: Sequence[str]) -> tuple[int, Ints]:
    """The table's root page and the positions of the columns in a row."""
    (root, sql) = connection.execute(
        "SELECT rootpage, sql FROM sqlite_master WHERE type = 'table' AND name = ?", (table,)
    ).fetchone()
    info = connection.execute(f'PRAGMA table_xinfo("{table}")').fetchall()
    place = {row[1]: row for row in info}
    if not root or "WITHOUT ROWID" in sql.upper() or any(row[6] for row in info):
        raise NotPlain("no ordinary table")
    wanted = [place[name] for name in columns]
    # A row identifier is not stored in its column, nor is what was added to the table after the row.
    if any(row[5] or row[4] is not None for row in wanted):
        raise NotPlain("a primary key or a default value")
    return root, np.array([row[0] for row in wanted], dtype=np.int64)


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
        pages = _read(file, level[:1], page_size)
        if pages[100 if level[0] == 1 else 0] == _LEAF:
            return level
        level = np.concatenate([_children(file, int(number), page_size) for number in level])
        if len(level) == 0:
            raise NotPlain("an interior page without children")


def _children(file: BinaryIO, number: int, page_size: int) -> Ints:
    page = _read(file, np.array([number]), page_size)
    head = 100 if number == 1 else 0
    if page[head] != _INTERIOR:
        raise NotPlain("a tree whose leaves lie at different depths")
    cells = int.from_bytes(page[head + 3 : head + 5].tobytes(), "big")
    pointers = page[head + 12 : head + 12 + 2 * cells].reshape(-1, 2).astype(np.int64) @ (256, 1)
    left = page[pointers[:, None] + np.arange(4)].astype(np.int64) @ (1 << 24, 1 << 16, 1 << 8, 1)
    right = int.from_bytes(page[head + 8 : head + 12].tobytes(), "big")
    return np.append(left, right)


def _read(file: BinaryIO, numbers: Ints, page_size: int) -> _Bytes:
    """The pages with these numbers, one after the other; neighbours in the file are read together."""
    buffer = np.empty(len(numbers) * page_size, dtype=np.uint8)
    view = memoryview(buffer)  # type: ignore[arg-type]
    ends = np.append(np.flatnonzero(np.diff(numbers) != 1) + 1, len(numbers))
    begin = 0
    for end in ends.tolist():
        into = view[begin * page_size : end * page_size]
        if os.preadv(file.fileno(), [into], (int(numbers[begin]) - 1) * page_size) != len(into):
            raise NotPlain("the file ends too early")
        begin = end
    return buffer


def _widths() -> Ints:
    """Bytes of the serial types below 128: NULL, integers, a float, 0, 1, two reserved, blobs and texts."""
    return np.array([0, 1, 2, 3, 4, 6, 8, 8, 0, 0, 0, 0, *((kind - 12) // 2 for kind in range(12, 128))])


def _decode(
    pages: _Bytes, head: Ints, rows: Ints, page_size: int, usable: int, widths: Ints, wanted: Ints,
    into: Ints, out: Ints,
) -> int:  # fmt: skip
    """Decode the cells of leaf pages into out[into[i]] for the i-th wanted column (ascending positions).

    `head` [pages] is where each page's header starts in `pages`, `rows` [pages] its number of cells,
    `widths` [128] the bytes that a value of each serial type takes. Returns the number of rows decoded; fewer
    than asked for if one can't be.
    """
    row = 0
    for page in range(len(head)):
        start = page * page_size
        for cell in range(rows[page]):
            pointer = head[page] + 8 + 2 * cell
            at = start + (int(pages[pointer]) << 8 | int(pages[pointer + 1]))
            size = 0
            while True:  # payload size
                byte = int(pages[at])
                at += 1
                size = size << 7 | (byte & 127)
                if byte < 128:
                    break
            if size > usable - 35:
                return row
            for _ in range(9):  # row identifier
                byte = int(pages[at])
                at += 1
                if byte < 128:
                    break
            key = at
            body = int(pages[key])
            key += 1
            if body >= 128:
                body = (body & 127) << 7 | int(pages[key])
                key += 1
            end = at + body
            value = end
            column = 0
            for found in range(len(wanted)):
                kind = 0
                while column <= wanted[found] and key < end:
                    kind = int(pages[key])
                    key += 1
                    if kind >= 128:
                        kind = kind & 127
                        byte = 128
                        while byte >= 128:
                            byte = int(pages[key])
                            key += 1
                            kind = kind << 7 | (byte & 127)
                        width = (kind - 12) // 2
                    else:
                        width = widths[kind]
                    value += width
                    column += 1
                if kind == 0 or column <= wanted[found]:  # NULL, or the row is older than this column
                    number = MISSING
                elif kind >= 8:
                    if kind > 9:
                        return row
                    number = kind - 8
                elif kind == 7:
                    return row
                else:
                    number = int(pages[value - width])
                    if number >= 128:
                        number -= 256
                    for place in range(value - width + 1, value):
                        number = number << 8 | int(pages[place])
                out[into[found], row] = number
            row += 1
    return row
