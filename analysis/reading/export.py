"""Reading rows out of an nsys export: absent tables are empty, damage is a TraceError."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from analysis.engine.compiled import pays
from analysis.engine.intervals import Ints
from analysis.reading import pages
from analysis.reading.pages import MISSING, Digest
from analysis.reading.source import damaged, open_database, table_names

_CHUNK_ROWS = 100_000


class Export:
    """An open export. Nothing is ever written: no index, no cache, no journal."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._unpacked = TemporaryDirectory(prefix="analysis-")
        try:
            self._connection, self._file = open_database(path, self._unpacked)
        except BaseException:
            self._unpacked.cleanup()
            raise
        # Real exports hold machine strings (clocks, environment) that are no valid UTF-8.
        self._connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
        self.tables = table_names(self._connection)

    def close(self) -> None:
        self._connection.close()
        self._unpacked.cleanup()

    def columns(self, table: str) -> set[str]:
        """The column names of a table; empty if the export has no such table."""
        return {row[1] for row in self.rows(f'PRAGMA table_info("{table}")')}

    def require(self, table: str, *columns: str) -> None:
        """Raise TraceError if the export has this table, but not all of these columns of it."""
        present = self.columns(table)
        if present and (absent := [name for name in columns if name not in present]):
            raise damaged(self.path, f"{table} has no column {' and no column '.join(absent)}")

    def select(self, table: str, *columns: str) -> list[Any]:
        """These columns of all rows; none if the table, or one of the columns, isn't there."""
        if not self.columns(table).issuperset(columns):
            return []
        return self.rows(f"SELECT {', '.join(columns)} FROM {table}")

    def rows(self, query: str) -> list[Any]:
        try:
            return self._connection.execute(query).fetchall()
        except sqlite3.DatabaseError as error:
            raise damaged(self.path, error) from error

    def integers(
        self, table: str, columns: Sequence[str], digest: Callable[[Ints], Digest]
    ) -> Iterator[Digest]:
        """What `digest` makes of these columns of all rows, chunk by chunk in the order of the rows.

        A chunk has shape [columns, rows]. MISSING stands for NULL, and for a column that this export doesn't
        have; of a table that it doesn't have there are no chunks. `digest` may run in several threads, and
        must keep nothing of its chunk but copies.
        """
        present = self.columns(table)
        if present.isdisjoint(columns):
            return
        done = 0
        if pays(expected := self.rows_at_most(table)):

            def counted(chunk: Ints) -> tuple[int, Digest]:
                return chunk.shape[1], digest(chunk)

            try:
                where = self._file, self._connection, table
                for rows, found in pages.integers(*where, columns, counted, expected):
                    yield found
                    done += rows
                return
            except pages.NotPlain:
                pass  # SQLite knows how to read what is left
        for chunk in self._selected(table, columns, present, done):
            yield digest(chunk)

    def _selected(self, table: str, columns: Sequence[str], present: set[str], skip: int) -> Iterator[Ints]:
        """Chunks of these columns, by SQL, without the first rows."""
        listed = (f'coalesce("{name}", {MISSING})' if name in present else str(MISSING) for name in columns)
        query = f"SELECT {', '.join(listed)} FROM {table} LIMIT -1 OFFSET {skip}"
        try:
            cursor = self._connection.execute(query)
            while rows := cursor.fetchmany(_CHUNK_ROWS):
                yield np.ascontiguousarray(np.array(rows, dtype=np.int64).T)
        except (sqlite3.DatabaseError, TypeError, ValueError, OverflowError) as error:
            raise damaged(self.path, error) from error

    def rows_at_most(self, table: str) -> int:
        """How many rows a table holds, or a few more; an export numbers them from 1."""
        if table not in self.tables:
            return 0
        try:
            (rows,) = self._connection.execute(f"SELECT max(rowid) FROM {table}").fetchone()
        except sqlite3.DatabaseError:
            return 0
        return rows or 0
