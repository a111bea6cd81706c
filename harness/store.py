"""outputs/results.db: an index of all runs, which can be rebuilt from their folders."""

from __future__ import annotations

import json
import socket
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
from sqlite_utils import Database

from harness.errors import ExitCode, UserError
from harness.metrics import source_of
from harness.plan import MEASURE_JSON, SAMPLED_JSON, TRACED_JSON
from harness.record import Record, drop_ballast, parse_utc, utc_now

NAME = "results.db"


def _create_tables(db: Database) -> None:
    texts = ("scope", "status", "started_utc", "finished_utc", "host", "model", "device", "machine", "commit")
    results = ("fingerprint", "inputs", "tokens_match", "error")
    of_run = [("run", "runs", "id")]
    db.create_table(
        "runs", {"id": str, "pid": int} | dict.fromkeys((*texts, *results), str), pk="id", if_not_exists=True
    )
    db.create_table(
        "iterations",
        {"run": str, "role": str, "iteration": int, "phase": str, "index": int, "ns": int},
        pk=("run", "role", "iteration", "phase", "index"),
        foreign_keys=of_run,
        if_not_exists=True,
    )
    db.create_table(
        "metrics",
        {"run": str, "metric": str, "value": float, "source": str},
        pk=("run", "metric", "source"),
        foreign_keys=of_run,
        if_not_exists=True,
    )
    db.create_table(
        "transcripts",
        {"run": str, "source": str, "window": int, "tokens": str, "text": str, "reference": str},
        pk=("run", "source", "window"),
        foreign_keys=of_run,
        if_not_exists=True,
    )


def _add_dirty(db: Database) -> None:
    if "dirty" not in db["runs"].columns_dict:  # a migration may have been cut off before it was counted
        db.execute("alter table runs add column dirty integer")


def _add_word_errors(db: Database) -> None:
    if "word_errors" not in db["runs"].columns_dict:
        db.execute("alter table runs add column word_errors text")


def _add_verdict(db: Database) -> None:
    if "verdict" not in db["runs"].columns_dict:
        db.execute("alter table runs add column verdict text")


# The database's version is the number of these that it has seen. Only ever append.
MIGRATIONS: tuple[Callable[[Database], None], ...] = (
    _create_tables,
    _add_dirty,
    _add_word_errors,
    _add_verdict,
)


class Store:
    """The index of the runs under `outputs`. Opening it marks runs whose process is gone as failed."""

    def __init__(self, outputs: Path) -> None:
        self.outputs = outputs
        self.path = outputs / NAME
        try:
            outputs.mkdir(parents=True, exist_ok=True)
            self._db = _open(self.path)
            self._reap()
        except (OSError, sqlite3.OperationalError) as error:
            raise UserError(
                f"cannot write to {outputs.absolute()}: {error}",
                "outputs=FOLDER with a folder that is writable and has space",
                ExitCode.STORAGE,
            ) from None
        except sqlite3.DatabaseError as error:
            raise UserError(
                f"{self.path} is damaged: {error}", "python -m harness.results rebuild", ExitCode.STORAGE
            ) from None

    def close(self) -> None:
        self._db.close()

    def put(self, record: Record) -> None:
        """Write or replace all rows of one run, in one transaction."""
        folder = self.outputs / record.id
        files = {"measure": MEASURE_JSON, "trace": TRACED_JSON, "sample": SAMPLED_JSON}
        roles = {role: results_left(folder / name) for role, name in files.items()}
        recorded = (record.capture.get("recorded") or {}).get("metrics", {})
        values = [(name, value, source_of(name)) for name, value in record.metrics.items()]
        values += [(name, value, "recorded") for name, value in recorded.items()]
        with self._db.conn as conn:
            for table in ("iterations", "metrics", "transcripts"):
                conn.execute(f"delete from {table} where run = ?", (record.id,))
            _insert(conn, "runs", [row_of(record)])
            _insert(
                conn,
                "iterations",
                [row for role, data in roles.items() for row in _iteration_rows(record.id, role, data)],
            )
            _insert(
                conn,
                "metrics",
                [{"run": record.id, "metric": m, "value": v, "source": s} for m, v, s in values],
            )
            _insert(conn, "transcripts", list(_transcript_rows(record.id, roles["measure"])))

    def runs(self) -> list[dict[str, Any]]:
        """All runs, oldest first."""
        return list(self._db.query("select * from runs order by started_utc, id"))

    def metrics(self, run: str) -> dict[str, float]:
        """The run's own metrics: those of a recorded trace are left out."""
        sql = "select metric, value from metrics where run = ? and source != 'recorded'"
        return {row["metric"]: row["value"] for row in self._db.query(sql, [run])}

    def finished(self, **where: str) -> Iterator[dict[str, Any]]:
        """Finished runs with these values in their columns and their folder still there, newest first."""
        condition = " and ".join(f'"{column}" = ?' for column in ("status", *where))
        sql = f"select * from runs where {condition} order by started_utc desc, id desc"
        found = self._db.query(sql, ["finished", *where.values()])
        return (run for run in found if (self.outputs / run["id"] / "run.json").exists())

    def _reap(self) -> None:
        running = self._db.query(
            "select id, pid, started_utc from runs where status = 'running' and host = ?",
            [socket.gethostname()],
        )
        for row in list(running):
            if _alive(row["pid"], parse_utc(row["started_utc"])):
                continue
            folder = self.outputs / row["id"]
            error = UserError("the process that made this run ended without a word", exit_code=ExitCode.CHILD)
            try:
                record = Record.load(folder)
            except UserError:
                with self._db.conn as conn:
                    conn.execute(
                        "update runs set status = 'failed', error = ? where id = ?", (str(error), row["id"])
                    )
                continue
            if record.status == "running":
                record.fail(error)
                record.finished_utc = utc_now()
                drop_ballast(folder)
                record.save(self.outputs)
            self.put(record)


def _open(path: Path) -> Database:
    db = Database(sqlite3.connect(path, timeout=30))
    version = db.conn.execute("pragma user_version").fetchone()[0]
    if version > len(MIGRATIONS):
        raise UserError(
            f"{path} was written by a newer harness (schema {version}, this one knows {len(MIGRATIONS)})",
            "update the project, or choose another outputs=FOLDER",
            ExitCode.STORAGE,
        )
    for number, migrate in enumerate(MIGRATIONS[version:], start=version + 1):
        migrate(db)
        db.conn.execute(f"pragma user_version = {number}")
    return db


def _alive(pid: int, started: datetime) -> bool:
    """Whether the process that started a run then still lives, and is not a later one of the same number."""
    try:
        process = psutil.Process(pid)
        return process.create_time() <= started.timestamp() + 1 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def results_left(path: Path) -> dict[str, Any]:
    """A child's results, or nothing if the child left none."""
    try:
        data = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def _insert(conn: sqlite3.Connection, table: str, rows: list[dict[str, Any]]) -> None:
    """Plain SQL, since sqlite-utils commits after each table and a run is one transaction."""
    if rows:
        columns = ", ".join(f'"{column}"' for column in rows[0])
        marks = ", ".join(f":{column}" for column in rows[0])
        conn.executemany(f"insert or replace into {table} ({columns}) values ({marks})", rows)


def row_of(record: Record) -> dict[str, Any]:
    """A run as a row of the table `runs`."""
    same = ("id", "scope", "status", "started_utc", "finished_utc", "host", "pid", "model", "device")
    return {name: getattr(record, name) for name in same} | {
        "machine": record.environment["machine"],
        "commit": record.environment["git"]["commit"],
        "dirty": record.environment["git"]["dirty"],
        "fingerprint": record.fingerprint,
        "inputs": record.inputs,
        "tokens_match": json.dumps(record.tokens_match) if record.tokens_match else None,
        "word_errors": json.dumps(record.word_errors) if record.word_errors else None,
        "verdict": json.dumps(record.verdict) if record.verdict else None,
        "error": record.error["message"] if record.error else None,
    }


def _iteration_rows(run: str, role: str, data: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for number, iteration in enumerate(data.get("iterations", [])):
        phases: dict[str, Iterable[int]] = {**iteration["phases"], "iter": [iteration["iter_ns"]]}
        for phase, durations in phases.items():
            for index, ns in enumerate(durations):
                yield {
                    "run": run,
                    "role": role,
                    "iteration": number,
                    "phase": phase,
                    "index": index,
                    "ns": ns,
                }


def _transcript_rows(run: str, data: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for transcript in data.get("transcripts", []):
        row = {name: transcript[name] for name in ("source", "window", "text", "reference")}
        yield {"run": run, "tokens": json.dumps(transcript["tokens"])} | row
