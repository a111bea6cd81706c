"""Reading rows out of an nsys export: absent tables are empty, damage is a TraceError."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from analysis import pages
from analysis.compiled import pays
from analysis.intervals import Ints
from analysis.pages import MISSING
from analysis.source import damaged, open_database, table_names

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

    def integers(self, table: str, columns: Sequence[str]) -> Iterator[Ints]:
        """These columns of all rows, in chunks of shape [columns, rows].

        MISSING stands for NULL, and for a column that this export doesn't have; of a table that it doesn't
        have there are no chunks.
        """
        present = [name for name in columns if name in self.columns(table)]
        rows = [columns.index(name) for name in present]
        for chunk in self._integers(table, present) if present else ():
            if len(present) == len(columns):
                yield chunk
            else:
                whole = np.full((len(columns), chunk.shape[1]), MISSING, dtype=np.int64)
                whole[rows] = chunk
                yield whole

    def _integers(self, table: str, columns: Sequence[str]) -> Iterator[Ints]:
        done = 0
        if pays(self.rows_at_most(table)):
            try:
                for chunk in pages.integers(self._file, self._connection, table, columns):
                    yield chunk
                    done += chunk.shape[1]
                return
            except pages.NotPlain:
                pass  # SQLite knows how to read what is left
        listed = ", ".join(f'coalesce("{name}", {MISSING})' for name in columns)
        try:
            cursor = self._connection.execute(f"SELECT {listed} FROM {table} LIMIT -1 OFFSET {done}")
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
