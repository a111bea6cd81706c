"""Traces recorded on a GPU that come with the project, for machines that have none."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from harness.environment import PROJECT
from harness.metrics import source_of
from harness.publish import PACKED_TRACE
from harness.record import day

FOLDER = PROJECT / "results"


@dataclass(frozen=True)
class RecordedTrace:
    """A bundled trace; `note` is what every figure and table made from it has to say."""

    trace: Path
    note: str
    measured: dict[str, float]


def find(scope: str) -> RecordedTrace | None:
    """The newest published trace of a scope (results/<machine>/<scope>/<utc>/), if there is one."""
    traces = sorted(FOLDER.glob(f"*/{scope}/*/{PACKED_TRACE}"), key=lambda trace: trace.parent.name)
    if not traces:
        return None
    trace = traces[-1]
    run = json.loads((trace.parent / "run.json").read_text())
    commit = run["environment"]["git"]["commit"]
    parts = [run["environment"]["machine"], day(run["started_utc"]), commit[:7] if commit else "no commit"]
    return RecordedTrace(
        trace=trace,
        note=f"recorded on {', '.join(parts)}",
        measured={name: value for name, value in run["metrics"].items() if source_of(name) == "measured"},
    )
