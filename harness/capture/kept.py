"""What an earlier capture left in a run's folder: nothing is recorded again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from harness import nsys
from harness.capture.base import TimelineOnly
from harness.capture.ncu import NCU_CSV
from harness.errors import ExitCode, UserError
from harness.phases import Annotator, SilentAnnotator


class KeptCapture(TimelineOnly):
    """The recordings of a run. capture: what its record says about them; its commands are only named."""

    def __init__(self, capture: Mapping[str, Any]) -> None:
        self.name = str(capture["backend"])
        self._capture = capture

    def check(self, device: str) -> None:
        pass

    def notes(self, device: str) -> list[str]:
        return []

    def command(self, child: Sequence[str], run: Path, device: str) -> list[str]:
        return list(self._capture["command"])

    def sample_command(self, child: Sequence[str], run: Path, device: str) -> list[str]:
        return list(self._capture.get("metrics_command") or ())

    def replay_command(self, child: Sequence[str], run: Path) -> list[str]:
        return list(self._capture.get("replay_command") or ())

    def finish(self, run: Path) -> Path:
        return _export(run / "trace")

    def finish_sample(self, run: Path) -> Path:
        return _export(run / "metrics")

    def finish_replay(self, run: Path) -> Path:
        return _there(run / NCU_CSV)

    def window(self, device: str, run: Path) -> AbstractContextManager[None]:
        return nullcontext()

    def annotator(self) -> Annotator:
        return SilentAnnotator()


def _export(stem: Path) -> Path:
    """The export of a recording; made now, if the run ended before there was one."""
    export, report = stem.with_suffix(".sqlite"), stem.with_suffix(".nsys-rep")
    if not export.is_file() and report.is_file():
        return nsys.finish(nsys.require(), stem)
    return _there(export)


def _there(path: Path) -> Path:
    if path.is_file():
        return path
    raise UserError(
        f"{path} is not there: the run ended before it was written, or it was deleted",
        "make the run again",
        ExitCode.TRACE,
    )
