"""Reading rows out of an nsys export: absent tables are empty, damage is a TraceError."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

from analysis.source import damaged, open_database, table_names

_CHUNK_ROWS = 100_000


class Export:
    """An open export. Nothing is ever written: no index, no cache, no journal."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._unpacked = TemporaryDirectory(prefix="analysis-")
        try:
            self._connection = open_database(path, self._unpacked)
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

    def integers(self, query: str, width: int) -> npt.NDArray[np.int64]:
        """All rows of a query that returns `width` integers per row: shape [rows, width]."""
        chunks = [np.empty((0, width), dtype=np.int64)]
        try:
            cursor = self._connection.execute(query)
            while rows := cursor.fetchmany(_CHUNK_ROWS):
                chunks.append(np.array(rows, dtype=np.int64))
        except (sqlite3.DatabaseError, TypeError, ValueError, OverflowError) as error:
            raise damaged(self.path, error) from error
        return np.concatenate(chunks)
