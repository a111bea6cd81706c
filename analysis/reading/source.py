"""From a path to an open database: read-only, and with a clear message for everything that isn't one."""

from __future__ import annotations

import gzip
import json
import lzma
import re
import shutil
import sqlite3
import zlib
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote

from analysis.errors import TraceError
from analysis.reading import schema

RECORD = "run.json"  # in the folder of every run
TRACES = ("trace.sqlite", "trace.sqlite.xz")

_SQLITE_MAGIC = b"SQLite format 3\x00"
_EXPORT = "nsys export --type=sqlite --output={stem}.sqlite {name}"


def trace_at(path: str | Path) -> Path:
    """The trace of a run, given its folder; any other path as it is."""
    path = Path(path)
    traces = [path / name for name in TRACES] if (path / RECORD).exists() else []
    return next((trace for trace in traces if trace.exists()), path)


def run_id(trace: Path) -> str:
    """The id (scope/utc) of the run in whose folder a trace lies; "" of a trace that lies elsewhere."""
    folder = trace.resolve().parent
    if not (folder / RECORD).exists():
        return ""
    try:
        record = json.loads((folder / RECORD).read_text())
    except (OSError, ValueError):
        record = None
    found = record.get("id") if isinstance(record, dict) else None
    return str(found or "/".join(folder.parts[-2:]))


def output_name(trace: Path) -> str:
    """What is made of a trace is named like this: after the run that it belongs to (every run's trace has the
    same name of its own), and else after itself."""
    stem = trace.name.split(".sqlite")[0]
    run = re.sub(r"[^\w.-]+", "-", run_id(trace)).strip("-.")
    return "-".join(filter(None, [run, "" if run and trace.name in TRACES else stem]))


def open_database(path: Path, unpack_to: TemporaryDirectory[str]) -> tuple[sqlite3.Connection, Path]:
    """Open an nsys export without ever writing to it; returns also the file that is open.

    `.xz` and `.gz` are unpacked into `unpack_to`. Raises TraceError if the file isn't a whole nsys export.
    """
    _check_is_file(path)
    if path.suffix in (".xz", ".gz"):
        path = _unpack(path, Path(unpack_to.name))
    _check_header(path)
    # Threads take turns: each reads tables of its own.
    connection = sqlite3.connect(
        f"file:{quote(str(path.resolve()))}?mode=ro", uri=True, check_same_thread=False
    )
    try:
        tables = table_names(connection)
    except sqlite3.DatabaseError as error:
        connection.close()
        raise damaged(path, error) from error
    if not tables.intersection(schema.EVENT_TABLES + schema.METADATA_TABLES):
        connection.close()
        found = ", ".join(sorted(tables)[:8]) or "none"
        raise TraceError(
            f"{path.name} is an SQLite database, but not an nsys export (its tables: {found})",
            "give the .sqlite file that `nsys export --type=sqlite` wrote",
        )
    return connection, path


def table_names(connection: sqlite3.Connection) -> set[str]:
    return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def damaged(path: Path, error: Exception | str) -> TraceError:
    return TraceError(f"{path.name} can't be read: {error}", "export it again: " + export_command(path))


def export_command(path: Path) -> str:
    """What makes an export like this one from its report."""
    stem = path.name.split(".")[0]
    return _EXPORT.format(stem=stem, name=f"{stem}.nsys-rep")


def _check_is_file(path: Path) -> None:
    if path.is_dir():
        names = (file.name for file in path.glob("*.sqlite*"))
        exports = sorted(names, key=lambda name: (not name.startswith("trace"), name))
        hint = f"in it: {', '.join(exports[:5])}" if exports else "give the .sqlite file of an nsys export"
        raise TraceError(f"{path} is a folder, not a trace", hint)
    if not path.exists():
        raise TraceError(f"no such file: {path}", "give the .sqlite file of an nsys export")
    if path.suffix in (".nsys-rep", ".qdrep"):
        raise TraceError(
            f"{path.name} is an nsys report; the analysis reads its SQLite export",
            _EXPORT.format(stem=path.stem, name=path.name),
        )
    if path.suffix == ".qdstrm":
        raise TraceError(
            f"{path.name} is an unfinished nsys recording",
            f"QdstrmImporter -i {path.name} -o {path.stem}.nsys-rep, and then "
            + _EXPORT.format(stem=path.stem, name=f"{path.stem}.nsys-rep"),
        )


def _unpack(path: Path, folder: Path) -> Path:
    target = folder / path.stem
    try:
        with lzma.open(path) if path.suffix == ".xz" else gzip.open(path) as packed, target.open("wb") as out:
            shutil.copyfileobj(packed, out)
    except (lzma.LZMAError, zlib.error, EOFError, OSError) as error:
        raise TraceError(f"{path.name} can't be unpacked: {error}", "is it a complete file?") from error
    return target


def _check_header(path: Path) -> None:
    """Tell "not SQLite" and "cut off" apart from the 100-byte file header, however large the file."""
    try:
        with path.open("rb") as file:
            header = file.read(100)
    except OSError as error:
        raise TraceError(f"{path} can't be read: {error.strerror}", "check its permissions") from error
    size = path.stat().st_size
    if size == 0:
        raise TraceError(f"{path.name} is empty (0 bytes)", "export it again: " + export_command(path))
    if not header.startswith(_SQLITE_MAGIC):
        if ".sqlite" not in path.name and (path.parent / RECORD).exists():
            raise TraceError(f"{path} is part of a run, not a trace", f"give the run's folder: {path.parent}")
        raise TraceError(
            f"{path.name} is not an SQLite database", "export the report first: " + export_command(path)
        )
    page = int.from_bytes(header[16:18], "big")
    page = 65536 if page == 1 else page  # the format's way of writing 65536 in two bytes
    expected = page * int.from_bytes(header[28:32], "big")
    if size < max(expected, 100):
        raise TraceError(
            f"{path.name} is truncated: {size:,} of {expected:,} bytes",
            "copy it again, or export it again: " + export_command(path),
        )
