"""The rows of all calls, in one file: a new row takes the place of the same contender's."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.peers.contenders import REFERENCE, Contender, Task
from benchmarks.peers.contest import Row, compared, identity
from harness.errors import ExitCode, UserError
from harness.record import parse_utc, write_json

SETTING = ("machine", "device", "model", "tokens")  # what rows must share to be compared
FACTS = ("label", "warmup", "commit", "dirty", "wall_s")  # what each row has besides
MEASURED = ("step_ms", "encode_ms", "total_ms", "floor_bytes", "peak_bps")


def load(path: Path) -> list[Row]:
    """The rows of a file, none if there is no such file; UserError for anything else."""
    if not path.exists():
        return []
    try:
        rows = json.loads(path.read_text())["rows"]
        for row in rows:
            hash(key(row))
            parse_utc(row["started_utc"])
            _ = [row[name] for name in (*FACTS, *(MEASURED if measured(row) else ()))]
        return rows
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is no file of this benchmark ({type(error).__name__}: {error})",
            "--into or --from ANOTHER_FILE",
            ExitCode.STORAGE,
        ) from None


def setting(row: Row) -> tuple[object, ...]:
    return tuple(row[name] for name in SETTING)


def key(row: Row) -> tuple[object, ...]:
    return (row["contender"], row["batch"], setting(row))


def measured(row: Row) -> bool:
    """Whether it has times, and not only the reason why there are none."""
    return not {"refused", "failed"} & row.keys()


def add(path: Path, found: Row) -> Row:
    """Compare a row with its reference, put it into the file, and return it.

    A row without times doesn't take the place of one that has them. Rows that came before their reference are
    compared when it comes.
    """
    rows = load(path)
    before = earlier(rows, found)
    if before and measured(before) and not measured(found):
        return found
    rows = [*(row for row in rows if row is not before), found]
    rows = [compared(row, reference(rows, row)) for row in rows]
    write_json(path, {"rows": rows})
    return rows[-1]


def earlier(rows: Sequence[Row], of: Row) -> Row | None:
    """The row of the same contender, batch and setting."""
    return next((row for row in rows if key(row) == key(of)), None)


def reference(rows: Sequence[Row], of: Row) -> Row | None:
    """The row that another one of the same setting and batch is compared with, if it was measured."""
    found = earlier(rows, of | {"contender": REFERENCE})
    return found if found and measured(found) else None


def done(rows: Sequence[Row], contender: Contender, task: Task, stamp: dict[str, Any]) -> bool:
    """Whether this was measured on the same machine at the same commit; an unknown one is never the same."""
    wanted = identity(contender, task, stamp)
    return wanted["commit"] is not None and any(
        measured(row) and wanted.items() <= row.items() for row in rows
    )


def largest(rows: Sequence[Row]) -> list[Row]:
    """Those of the setting with the most measured rows, of the newest among equals."""
    settings: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        settings.setdefault(setting(row), []).append(row)
    return max(
        settings.values(),
        key=lambda same: (sum(map(measured, same)), max(row["started_utc"] for row in same)),
    )
