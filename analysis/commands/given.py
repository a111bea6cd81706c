"""What a command was given: from a path on the command line to the trace that is meant."""

from __future__ import annotations

from pathlib import Path

from analysis.commands import common
from analysis.reading.source import RECORD, trace_at

TRACE = "an nsys SQLite export (.sqlite, or .xz, .gz), a run's folder, or that of one scope: its newest run"


def trace_of(path: Path) -> Path:
    """The trace of a run, given its folder, or of the newest finished run, given the folder of one scope's
    runs; any other path as it is. Raises TraceError as `compare` does: where no run has finished, or where
    there are several scopes."""
    holds_runs = any(next(path.glob(f"{depth}/{RECORD}"), None) for depth in ("*", "*/*"))
    if (path / RECORD).exists() or not holds_runs:
        return trace_at(path)
    from analysis.comparison import subjects  # numpy takes long to import

    run = subjects.only(path)
    common.say(f"{path}: its newest finished run is {run.path.name}", on_stderr=True)
    return trace_at(run.path)
