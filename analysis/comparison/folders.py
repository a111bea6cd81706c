"""Which runs there are in a folder of runs, and how each ended."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from analysis.comparison import records
from analysis.reading.source import RECORD

FINISHED = "finished"
_STAMP = re.compile(r"\d{8}T\d{6}Z(-\d+)?")  # the names of the harness's run folders
_NO_RECORD = f"it has no {RECORD}"


@dataclass(frozen=True)
class Listed:
    """A run of which no more was read than what it takes to choose; as text, its folder and how it ended.

    place: sorts runs by their start, and those of one second by their number: <utc>, <utc>-1 … <utc>-10.
    """

    folder: Path
    scope: str
    status: str
    place: tuple[str, int, str]

    def is_newer_than(self, chosen: Listed, *, alone: bool) -> bool:
        """Whether it began after a run, where that may stand for it: beside it, of its scope, or (`alone`: no
        other scope has a finished run) of any. What has no record is perhaps no scope's at all."""
        beside = self.folder.parent == chosen.folder.parent or self.scope == chosen.scope
        return self.place > chosen.place and (beside or (alone and self.status != _NO_RECORD))

    def __str__(self) -> str:
        return f"{self.folder} ({in_words(self.status)})"


def in_words(status: str) -> str:
    """The status of an unfinished run, for brackets behind its folder."""
    return {"running": "still running, or killed"}.get(status, status)


def listed(path: Path) -> tuple[dict[str, Listed], list[Listed]]:
    """Of <path>/<utc>/ or <path>/<scope>/<utc>/, the newest finished run by scope, and all that did not
    finish, oldest first. Raises TraceError for a damaged record."""
    folders = [one for pattern in ("*", "*/*") for one in path.glob(pattern) if one.is_dir()]
    runs = sorted((run for one in folders if (run := _run(one))), key=lambda run: run.place)
    finished = {run.scope: run for run in runs if run.status == FINISHED}
    return finished, [run for run in runs if run.status != FINISHED]


def _run(folder: Path) -> Listed | None:
    """None for a folder that is no run's. A run that was killed at once, or just starts, has no record."""
    if (folder / RECORD).exists():
        record = records.record(folder)
        started, scope, status = record["started_utc"], record["scope"], record["status"]
    elif _STAMP.fullmatch(folder.name):
        started, scope, status = folder.name.partition("-")[0], folder.resolve().parent.name, _NO_RECORD
    else:
        return None
    return Listed(folder, scope, status, (started, len(folder.name), folder.name))
