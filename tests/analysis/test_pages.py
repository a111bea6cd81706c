"""Pages read by our own decoder hold what SQLite says that they hold; what is unusual is left to SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from analysis.reading import pages
from analysis.reading.export import Export
from analysis.reading.pages import MISSING, NotPlain

ROWS = 20_500  # enough for pages to be decoded by machine code

# Every width of SQLite's integers, and both sides of each border.
BORDERS = [
    sign * (1 << bits) + one for bits in (0, 7, 15, 23, 31, 47, 62) for sign in (1, -1) for one in (-1, 0)
]
values = st.none() | st.sampled_from(BORDERS) | st.integers(-(2**63) + 1, 2**63 - 1)


def read(path: Path, table: str, columns: list[str]) -> np.ndarray:
    with closing(sqlite3.connect(path)) as connection:
        return np.concatenate(list(pages.integers(path, connection, table, columns, np.copy, 1)), axis=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pages")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.tuples(values, values, values), max_size=200),
    page_size=st.sampled_from([512, 1024, 4096, 65536]),
    deleted=st.sets(st.integers(1, 200)),
)
def test_integers_of_every_width_are_read_as_sqlite_reads_them(
    folder: Path, rows: list[tuple[int | None, ...]], page_size: int, deleted: set[int]
) -> None:
    """With texts between the columns, rows that are gone, and columns younger than some of the rows."""
    path = folder / "t.sqlite"
    path.unlink(missing_ok=True)
    with closing(sqlite3.connect(path)) as database:
        database.execute(f"PRAGMA page_size = {page_size}")
        database.execute("CREATE TABLE t (a INTEGER, label TEXT, b INTEGER, c INTEGER)")
        database.executemany(
            "INSERT INTO t VALUES (?, ?, ?, ?)", [(a, "x" * (len(rows) % 90), b, c) for a, b, c in rows]
        )
        database.execute("ALTER TABLE t ADD COLUMN late INTEGER")
        database.executemany("INSERT INTO t VALUES (?, NULL, ?, ?, 7)", rows[:5])
        database.executemany("DELETE FROM t WHERE rowid = ?", [(one,) for one in deleted])
        database.commit()
        expected = database.execute("SELECT c, a, late FROM t ORDER BY rowid").fetchall()
    found = read(path, "t", ["c", "a", "late"]).T.tolist()
    assert found == [[MISSING if value is None else value for value in row] for row in expected]


def many(database: sqlite3.Connection, columns: str = "a INTEGER, b INTEGER", extra: str = "") -> None:
    database.execute(f"CREATE TABLE CUPTI_ACTIVITY_KIND_RUNTIME ({columns}) {extra}")
    rows = ((n, n * n) for n in range(ROWS))
    database.executemany("INSERT INTO CUPTI_ACTIVITY_KIND_RUNTIME (a, b) VALUES (?, ?)", rows)


def overflowing(database: sqlite3.Connection) -> None:
    many(database, "a INTEGER, b INTEGER, label TEXT")
    database.execute("UPDATE CUPTI_ACTIVITY_KIND_RUNTIME SET label = ? WHERE a = 20200", ("x" * 9000,))


def write_ahead(database: sqlite3.Connection) -> None:
    database.execute("PRAGMA journal_mode = WAL")
    many(database)


UNUSUAL: dict[str, Callable[[sqlite3.Connection], None]] = {
    "overflow pages": overflowing,
    "write-ahead log": write_ahead,
    "without rowid": lambda database: many(database, "a INTEGER PRIMARY KEY, b INTEGER", "WITHOUT ROWID"),
    "primary key": lambda database: many(database, "a INTEGER PRIMARY KEY, b INTEGER"),
    "plain": many,
}


@pytest.fixture
def export(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Export]:
    path = tmp_path / "t.sqlite"
    with closing(sqlite3.connect(path)) as database:
        request.param(database)
        database.commit()
    opened = Export(path)
    yield opened
    opened.close()


@pytest.mark.parametrize("export", UNUSUAL.values(), ids=UNUSUAL.keys(), indirect=True)
def test_a_large_table_of_any_kind_is_read_whole(export: Export) -> None:
    chunks = list(export.integers("CUPTI_ACTIVITY_KIND_RUNTIME", ["b", "absent", "a"], np.copy))
    b, absent, a = np.concatenate(chunks, axis=1)
    assert a.tolist() == list(range(ROWS))
    assert (b == a * a).all() and (absent == MISSING).all()


@pytest.mark.parametrize("unusual", [name for name in UNUSUAL if name != "plain"])
def test_what_is_unusual_is_left_to_sqlite(unusual: str, tmp_path: Path) -> None:
    path = tmp_path / "t.sqlite"
    with closing(sqlite3.connect(path)) as database:
        UNUSUAL[unusual](database)
        database.commit()
        with pytest.raises(NotPlain):
            list(pages.integers(path, database, "CUPTI_ACTIVITY_KIND_RUNTIME", ["a", "b"], np.copy, ROWS))


def test_values_that_are_no_integers_are_left_to_sqlite(tmp_path: Path) -> None:
    path = tmp_path / "t.sqlite"
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE t (a)")
        database.execute("INSERT INTO t VALUES (1.5)")
        database.commit()
        with pytest.raises(NotPlain):
            list(pages.integers(path, database, "t", ["a"], np.copy, 1))


def test_damaged_pages_are_left_to_sqlite(tmp_path: Path) -> None:
    """Whatever the bytes are, nothing beyond the pages is read and nothing loops for ever."""
    path = tmp_path / "t.sqlite"
    with closing(sqlite3.connect(path)) as database:
        many(database)
        database.commit()
        whole = path.read_bytes()
        rng = np.random.default_rng(0)
        for filler in (b"\xff" * 64, b"\x7f" * 64, *(rng.bytes(64) for _ in range(40))):
            at = int(rng.integers(3 * 4096, len(whole) - 64))
            path.write_bytes(whole[:at] + filler + whole[at + 64 :])
            with suppress(NotPlain, sqlite3.DatabaseError):
                list(pages.integers(path, database, "CUPTI_ACTIVITY_KIND_RUNTIME", ["a", "b"], np.copy, ROWS))
