"""`python -m analysis.trim EXPORT.sqlite OUT.sqlite.xz [--until RANGE]`: an export small enough to keep.

It drops the recording machine's processes, environment and paths. `--until decode.step:3` also drops what
the host did after the end of the third range of that name and the work that it launched then, and cuts the
ranges that were open. Of sampled GPU metrics it keeps those that the analysis reads, while the work that is
left ran. Everything else that the analysis reads stays as nsys wrote it.
"""

from __future__ import annotations

import argparse
import lzma
import shutil
import sqlite3
import sys
from contextlib import closing
from operator import itemgetter
from pathlib import Path
from tempfile import TemporaryDirectory

from analysis.errors import TraceError
from analysis.reading.schema import API_TABLE, METADATA_TABLES, THREAD_BITS, WORK_TABLES, ranges_query

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
MARGIN_NS = 1_000_000  # samples are stamped by another clock than the work
TIMED = ("CUPTI_ACTIVITY_KIND_", "NVTX_EVENTS", "PROFILER_OVERHEAD", "CUDA_GRAPH_")


def _shrink(database: sqlite3.Connection, until: str | None) -> None:
    tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    timed = [table for table in tables if table.startswith(TIMED)]
    _forget_the_machine(database, tables)
    if until and (cut_ns := _end_of(database, until)) is not None:
        _cut(database, timed, cut_ns)
    _drop_unused_metrics(database, tables, timed)
    _drop_unused_strings(database, timed)
    database.commit()
    database.execute("VACUUM")


def _forget_the_machine(database: sqlite3.Connection, tables: list[str]) -> None:
    for table in DROPPED:
        database.execute(f'DROP TABLE IF EXISTS "{table}"')
    if "TARGET_INFO_SYSTEM_ENV" in tables:
        database.execute(f"DELETE FROM TARGET_INFO_SYSTEM_ENV WHERE name NOT IN {KEPT_ENVIRONMENT}")
    personal = "name LIKE '%PATH%' OR name LIKE '%FILE%' OR name LIKE '%HOST%' OR name LIKE '%USER%'"
    for table in METADATA_TABLES:
        if table in tables:
            database.execute(f"DELETE FROM {table} WHERE {personal}")


def _end_of(database: sqlite3.Connection, until: str) -> int | None:
    """Where the range NAME:COUNT ends, ns; None if the trace has fewer, or never closed that one."""
    name, _, count = until.rpartition(":")
    if not count.isdecimal() or int(count) == 0:
        raise TraceError(f"--until {until} is not NAME:COUNT", "decode.step:3, say")
    columns = _columns(database, "NVTX_EVENTS")
    ranges = database.execute(ranges_query(set(columns))).fetchall() if columns else []
    ends = [end for _, _, text, _, _, end in sorted(ranges, key=itemgetter(4)) if text == name]
    if not ends:
        raise TraceError(f"the trace has no ranges named {name}", "--until NAME:COUNT of a range it has")
    return ends[int(count) - 1] if len(ends) >= int(count) else None


def _cut(database: sqlite3.Connection, timed: list[str], cut_ns: int) -> None:
    """Drop what the host did from `cut_ns` on, and the work that it launched then.

    The host runs ahead of the device: by the device's own times the last steps would lose their kernels.
    """
    # Without the types a lookup converts every row of the table instead of using its key.
    database.execute(
        "CREATE TEMP TABLE launch (process INTEGER, correlation INTEGER, start INTEGER, "
        "PRIMARY KEY (process, correlation))"
    )
    if API_TABLE in timed:
        database.execute(
            f"""INSERT INTO launch SELECT globalTid & ~{THREAD_BITS}, correlationId, min(start)
                FROM {API_TABLE} GROUP BY 1, 2"""
        )
    launched = """SELECT launch.start FROM launch
                  WHERE launch.process = globalPid AND launch.correlation = correlationId"""
    end_ns = cut_ns
    for table in timed:
        if table in WORK_TABLES.values():
            database.execute(f'DELETE FROM "{table}" WHERE coalesce(({launched}), start) >= {cut_ns}')
            (last_ns,) = database.execute(f'SELECT max("end") FROM "{table}"').fetchone()
            end_ns = max(end_ns, last_ns or 0)
        elif "start" in _columns(database, table):
            database.execute(f'DELETE FROM "{table}" WHERE start >= {cut_ns}')
    # The ranges that are still open are the window's: they must hold the work that is left.
    database.execute(f'UPDATE NVTX_EVENTS SET "end" = {end_ns} WHERE "end" > {end_ns}')


def _drop_unused_metrics(database: sqlite3.Connection, tables: list[str], timed: list[str]) -> None:
    """Of the samples, keep what `analysis.memory` reads, around the work that is left.

    Samples that an older nsys stored as JSON are not read at all: their table stays, empty.
    """
    from analysis.memory.samples import NAMES_TABLE, TABLE, canonical

    if "GENERIC_EVENTS" in tables:
        database.execute("DELETE FROM GENERIC_EVENTS")
    if TABLE not in tables or NAMES_TABLE not in tables:
        return
    database.create_function("is_read", 1, lambda name: canonical(str(name)) is not None, deterministic=True)
    database.execute(f"DELETE FROM {NAMES_TABLE} WHERE NOT is_read(metricName)")
    work = [table for table in timed if table in WORK_TABLES.values()]
    spans = " UNION ALL ".join(f'SELECT min(start) AS first, max("end") AS last FROM "{t}"' for t in work)
    none = "SELECT NULL AS first, NULL AS last"
    first_ns, last_ns = database.execute(f"SELECT min(first), max(last) FROM ({spans or none})").fetchone()
    outside = f"coalesce(timestamp NOT BETWEEN ? - {MARGIN_NS} AND ? + {MARGIN_NS}, TRUE)"
    unread = f"(typeId, metricId) NOT IN (SELECT typeId, metricId FROM {NAMES_TABLE})"
    database.execute(f"DELETE FROM {TABLE} WHERE {outside} OR {unread}", (first_ns, last_ns))


def _drop_unused_strings(database: sqlite3.Connection, timed: list[str]) -> None:
    used = [
        f'SELECT "{name}" FROM "{table}" WHERE "{name}" IS NOT NULL'
        for table in timed
        for name in _columns(database, table)
        if name.endswith(STRING_IDS)
    ]
    database.execute(f"DELETE FROM StringIds WHERE id NOT IN ({' UNION '.join(used)})")


def _columns(database: sqlite3.Connection, table: str) -> list[str]:
    return [row[1] for row in database.execute(f'PRAGMA table_info("{table}")')]


def trim(export: Path, out: Path, until: str | None = None) -> None:
    """Write `export` (SQLite) as `out` (.sqlite.xz), cut after the range `until` ("NAME:COUNT").

    A trace with fewer such ranges is kept whole; one without any is a TraceError.
    """
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
    except (TraceError, sqlite3.DatabaseError, OSError) as problem:
        sys.exit(f"error: {arguments.export}: {problem}")


if __name__ == "__main__":
    main()
