"""A run's folder and its run.json: the truth that everything else can be rebuilt from."""

from __future__ import annotations

import json
import os
import socket
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.errors import ExitCode, UserError

SCHEMA_VERSION = 1
BALLAST_BYTES = 512 * 1024
_BALLAST = ".ballast"
_UTC = "%Y%m%dT%H%M%SZ"


def utc_now() -> str:
    """The time as folders and records name it, e.g. 20261122T153000Z."""
    return datetime.now(UTC).strftime(_UTC)


def parse_utc(stamp: str) -> datetime:
    """The time that `utc_now` wrote."""
    return datetime.strptime(stamp, _UTC).replace(tzinfo=UTC)


def day(stamp: str) -> str:
    """The date of a time that `utc_now` wrote, as people write it: 2026-11-22."""
    return parse_utc(stamp).date().isoformat()


def days(stamps: Iterable[str]) -> str:
    """The dates of one or more such times: "2026-11-22", or "2026-11-22 to 2026-11-29"."""
    dates = sorted({day(stamp) for stamp in stamps})
    return dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"


def code_label(commit: str | None, dirty: bool | None) -> str:
    """A state of the code in a few letters: "1a2b3c4", with "+changes" if the tree was not that commit's."""
    return f"{commit[:7]}{'+changes' if dirty else ''}" if commit else "no commit"


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file that is either whole or absent."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        temporary.write_text(json.dumps(value, indent=1) + "\n")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(file: Path, option: str) -> None:
    """UserError, before minutes of work, if `file` can't be written; its folder is made."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.is_dir():
            raise UserError(f"{file} is a folder", f"{option} FILE", ExitCode.STORAGE)
        with tempfile.TemporaryFile(dir=file.parent):
            pass
    except OSError as problem:
        what = f"{file} can't be written ({problem.strerror or problem})"
        raise UserError(what, f"{option} ANOTHER_FILE", ExitCode.STORAGE) from None


@dataclass
class Record:
    """run.json. `status` is running, finished, failed or interrupted; times are UTC.

    analysed: `utc`, `commit` and `dirty` of a later analysis (harness.reanalyse) that all results come from.
    """

    id: str
    scope: str
    started_utc: str
    fingerprint: str
    inputs: str
    command: list[str]
    overrides: list[str]
    model: str
    device: str
    environment: dict[str, Any]
    capture: dict[str, Any]
    status: str = "running"
    finished_utc: str | None = None
    host: str = field(default_factory=socket.gethostname)
    pid: int = field(default_factory=os.getpid)
    metrics: dict[str, float] = field(default_factory=dict)
    verdict: list[dict[str, Any]] = field(default_factory=list)
    tokens_match: dict[str, Any] | None = None
    word_errors: dict[str, Any] | None = None
    artifacts: list[str] = field(default_factory=list)
    error: dict[str, Any] | None = None
    analysed: dict[str, Any] | None = None
    schema_version: int = SCHEMA_VERSION

    @property
    def code(self) -> str:
        """The state of the code that the run was made from."""
        git = self.environment["git"]
        return code_label(git["commit"], git["dirty"])

    def save(self, outputs: Path) -> None:
        write_json(outputs / self.id / "run.json", asdict(self))

    def fail(self, error: UserError, status: str = "failed") -> None:
        self.status = status
        self.error = {"message": str(error), "hint": error.hint, "exit_code": int(error.exit_code)}

    @classmethod
    def load(cls, folder: Path) -> Record:
        """Read a run folder; UserError if its run.json is absent, broken or from another version."""
        path = folder / "run.json"
        if not path.is_file():
            raise UserError(f"{folder} has no run.json, so it is not a run", "<outputs>/<scope>/<utc>")
        try:
            raw = json.loads(path.read_text())
            if raw["schema_version"] != SCHEMA_VERSION:
                raise UserError(
                    f"{path} has schema {raw['schema_version']}, this harness reads {SCHEMA_VERSION}"
                )
            raw = dict.fromkeys(("word_errors", "analysed")) | raw  # which older runs don't have
            return cls(**{f.name: raw[f.name] for f in fields(cls)})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} is not a run's record: {error}") from None


def create_folder(outputs: Path, scope: str) -> str:
    """Make outputs/<scope>/<utc>/ with its ballast and return the run's id, "<scope>/<utc>".

    The ballast is disk space kept back, so that a run that fills the disk can still be recorded.
    """
    stamp = utc_now()
    for name in (stamp, *(f"{stamp}-{n}" for n in range(1, 1000))):
        folder = outputs / scope / name
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            if folder.is_dir():
                continue
            raise
        try:
            with open(folder / _BALLAST, "wb") as ballast:
                ballast.write(b"\1" * BALLAST_BYTES)
        except OSError:
            drop_ballast(folder)
            folder.rmdir()
            raise
        return f"{scope}/{name}"
    raise UserError(f"a thousand runs of {scope} started in one second", exit_code=ExitCode.STORAGE)


def drop_ballast(folder: Path) -> None:
    """Give the kept space back."""
    with suppress(OSError):
        (folder / _BALLAST).unlink(missing_ok=True)
