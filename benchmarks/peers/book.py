"""The rows of all calls, in one file: a new row takes the place of the same contender's."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from benchmarks.peers.contenders import REFERENCE
from benchmarks.peers.contest import Row, compared
from harness.errors import ExitCode, UserError
from harness.record import write_json

SETTING = ("machine", "device", "model", "tokens")  # what rows must share to be compared


def load(path: Path) -> list[Row]:
    """The rows of a file, none if there is no such file; UserError for anything else."""
    if not path.exists():
        return []
    try:
        rows = json.loads(path.read_text())["rows"]
        for row in rows:
            key(row)
        return rows
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is no file of this benchmark ({error})", "--into ANOTHER_FILE", ExitCode.STORAGE
        ) from None


def setting(row: Row) -> tuple[object, ...]:
    return tuple(row[name] for name in SETTING)


def key(row: Row) -> tuple[object, ...]:
    return (row["contender"], row["batch"], setting(row))


def add(path: Path, found: Row) -> Row:
    """Compare a row with its reference, put it into the file, and return it."""
    rows = [row for row in load(path) if key(row) != key(found)]
    found = compared(found, reference(rows, found))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"rows": [*rows, found]})
    return found


def reference(rows: Sequence[Row], of: Row) -> Row | None:
    """The row that another one of the same setting and batch is compared with, if it was measured."""
    wanted = (REFERENCE, of["batch"], setting(of))
    return next((row for row in rows if key(row) == wanted and "step_ms" in row), None)


def latest(rows: Sequence[Row]) -> list[Row]:
    """Those that share the setting of the newest."""
    newest = max(rows, key=lambda row: row["started_utc"])
    return [row for row in rows if setting(row) == setting(newest)]
