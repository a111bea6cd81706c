"""`python -m analysis.trim EXPORT.sqlite OUT.sqlite.xz [--until RANGE]`: an export small enough to keep.

It drops the recording machine's processes, environment and paths. `--until decode.step:3` also drops what
started after the end of the third range of that name, and cuts the ranges that were open then. Everything
else that the analysis reads stays as nsys wrote it.
"""

from __future__ import annotations

import argparse
import lzma
import shutil
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

from analysis.errors import TraceError

DROPPED = (
    "PROCESSES",
    "ThreadNames",
    "DIAGNOSTIC_EVENT",
    "ANALYSIS_FILE",
    "ProcessStreams",
    "META_DATA_CAPTURE",
)
KEPT_ENVIRONMENT = ("CudaDriverVersion", "NvDriverVersion", "CpuCores", "CpuDescription", "GpuInfo")
STRING_IDS = ("nameId", "Name", "textId", "TextId")
TIMED = ("CUPTI_ACTIVITY_KIND_", "NVTX_EVENTS", "PROFILER_OVERHEAD", "CUDA_GRAPH_")


def _shrink(database: sqlite3.Connection, until: str | None) -> None:
    tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    for table in DROPPED:
        database.execute(f'DROP TABLE IF EXISTS "{table}"')
    database.execute(f"DELETE FROM TARGET_INFO_SYSTEM_ENV WHERE name NOT IN {KEPT_ENVIRONMENT}")
    for table in ("META_DATA_EXPORT", "EXPORT_META_DATA"):
        if table in tables:
            personal = "name LIKE '%PATH%' OR name LIKE '%FILE%' OR name LIKE '%HOST%' OR name LIKE '%USER%'"
            database.execute(f"DELETE FROM {table} WHERE {personal}")
    timed = [table for table in tables if table.startswith(TIMED)]
    if until:
        cut = _end_of(database, until)
        for table in timed:
            if "start" in _columns(database, table):
                database.execute(f'DELETE FROM "{table}" WHERE start > {cut}')
        database.execute(f'UPDATE NVTX_EVENTS SET "end" = {cut} WHERE "end" > {cut}')
    used = []
    for table in timed:
        ids = [
            name
            for name in _columns(database, table)
            if name.endswith(("nameId", "Name", "textId", "TextId"))
        ]
        used += [f'SELECT "{name}" FROM "{table}" WHERE "{name}" IS NOT NULL' for name in ids]
    database.execute(f"DELETE FROM StringIds WHERE id NOT IN ({' UNION '.join(used)})")
    database.commit()
    database.execute("VACUUM")


def _columns(database: sqlite3.Connection, table: str) -> list[str]:
    return [row[1] for row in database.execute(f'PRAGMA table_info("{table}")')]


def _end_of(database: sqlite3.Connection, until: str) -> int:
    name, _, count = until.rpartition(":")
    text = "coalesce(text, (SELECT value FROM StringIds WHERE id = textId))"
    query = f'SELECT "end" FROM NVTX_EVENTS WHERE {text} = ? ORDER BY start LIMIT 1 OFFSET ?'
    found = database.execute(query, (name, int(count) - 1)).fetchone()
    if found is None:
        raise TraceError(
            f"the trace has no {count} ranges named {name}", "--until NAME:COUNT of a range it has"
        )
    return int(found[0])


def trim(export: Path, out: Path, until: str | None = None) -> None:
    """Write `export` (SQLite) as `out` (.sqlite.xz), cut after the range `until` ("NAME:COUNT")."""
    with TemporaryDirectory() as folder:
        copy = Path(folder) / "copy.sqlite"
        shutil.copy(export, copy)
        with closing(sqlite3.connect(copy)) as database:
            _shrink(database, until)
        with copy.open("rb") as source, lzma.open(out, "wb", preset=9) as packed:
            shutil.copyfileobj(source, packed)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m analysis.trim", description=__doc__)
    parser.add_argument("export", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--until", metavar="NAME:COUNT")
    arguments = parser.parse_args()
    try:
        trim(arguments.export, arguments.out, arguments.until)
    except (TraceError, sqlite3.DatabaseError, OSError, ValueError) as problem:
        sys.exit(f"error: {arguments.export}: {problem}")


if __name__ == "__main__":
    main()
