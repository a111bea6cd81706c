"""A run in the making: its folder, its record, and the children that fill them."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from rich.console import Console

from harness import processes, report
from harness.errors import ExitCode, UserError, disk_is_full
from harness.plan import Plan
from harness.progress import Bar
from harness.record import Record

if TYPE_CHECKING:
    from analysis.html import Traced

# Less than this left on the disk when a run fails means that the disk is why.
_FULL_BYTES = 64 * 1024


@dataclass
class Job:
    """What the steps of a run share. detail: its trace for the page, once there is one."""

    plan: Plan
    record: Record
    out: Console

    def __post_init__(self) -> None:
        self.folder = self.plan.outputs / self.record.id
        self.log = self.folder / "log.txt"
        self.plots = self.folder / "plots"
        self.report = report.Report(self.out)
        self.detail: Traced | None = None

    def child(self, command: list[str], result: str, what: str) -> dict[str, Any]:
        """Run a child to its end and return what it wrote; UserError if it failed."""
        before = self.log.stat().st_size if self.log.exists() else 0
        status = self._run(command, what)
        path = self.folder / result
        if not path.exists() and self.plan.capture.can_be_asked_again(self._log(before)):
            self.report.say(f"note: {what}: the profiler did not start, and was asked again")
            status = self._run(command, what)
        if not path.exists():
            # A child that is not killed always writes its results: else the profiler failed to start it.
            profiler = command[0] != sys.executable and not processes.killed(status)
            if profiler and (refusal := self._refusal()):
                raise refusal
            raise UserError(
                f"{what}: ended without results ({processes.describe_exit(status)})",
                f"see {self.log}" + (", and python -m harness.doctor" if profiler else ""),
                ExitCode.MACHINE if profiler else ExitCode.CHILD,
            )
        return results_of(path, self.log)

    def _run(self, command: list[str], what: str) -> int:
        """Run a child to its end, shown as `what`; its exit status."""
        self.out.print(f"{what} ...", markup=False)
        begin = time.monotonic()
        with Bar(self.out, what) as bar:
            status = processes.run(command, self.log, bar)
        self.out.print(f"{what} took {time.monotonic() - begin:.0f} s", markup=False, highlight=False)
        return status

    def _log(self, begin: int = 0) -> str:
        """What children said, from this byte on."""
        return self.log.read_bytes()[begin:].decode(errors="replace")

    def _refusal(self) -> UserError | None:
        return self.plan.capture.refusal(self.folder, self._log())

    def add(self, artifacts: Iterable[Path]) -> None:
        """Name files of the run's folder in its record."""
        self.record.artifacts += [str(Path(path).relative_to(self.folder)) for path in artifacts]

    def disk_is_full(self, error: BaseException) -> bool:
        """Whether a full disk is why something failed. It shows in many ways: ask the disk, too."""
        return disk_is_full(error) or shutil.disk_usage(self.folder).free < _FULL_BYTES


def results_of(path: Path, log: Path) -> dict[str, Any]:
    """What a child wrote into `path`; UserError if that is why it failed, or if it can't be read."""
    try:
        data = cast(dict[str, Any], json.loads(path.read_text()))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} can't be read: {error}", "make the run again", ExitCode.CHILD) from None
    if problem := data["error"]:
        hint = problem["hint"] or f"see {log}"
        raise UserError(problem["message"], hint, ExitCode(problem["exit_code"]))
    return data
