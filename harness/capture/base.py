"""What a capture backend is."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from harness.errors import UserError
from harness.phases import Annotator


class Capture(Protocol):
    """Records one traced child into `<run>/trace.sqlite`, in the schema of an nsys export.

    A backend may have further children: one whose memory traffic is sampled, since sampling changes the gaps,
    and one whose kernels are measured one by one.
    """

    name: str

    def check(self, device: str) -> None:
        """UserError (MACHINE) saying what is missing for a trace on `device` and what to do."""

    def notes(self, device: str) -> list[str]:
        """What a trace on `device` will lack on this machine, and why; said in the run's report."""

    def command(self, child: Sequence[str], run: Path, device: str) -> list[str]:
        """The exact command line of the traced child; empty if nothing is traced."""

    def sample_command(self, child: Sequence[str], run: Path, device: str) -> list[str]:
        """The command line of a further child that is recorded with GPU metrics; empty if none is."""

    def replay_command(self, child: Sequence[str], run: Path) -> list[str]:
        """The command line of a further child whose kernels are measured one by one; empty if none are."""

    def can_be_asked_again(self, said: str) -> bool:
        """Whether the profiler, by what it said, has started no child but may well do so the next time."""

    def refusal(self, run: Path, log: str) -> UserError | None:
        """Why the profiler did not start the child, by what it said in the run's log; None if unknown."""

    def finish(self, run: Path) -> Path:
        """After the child has ended: `<run>/trace.sqlite`. UserError if there is no usable recording."""

    def finish_sample(self, run: Path) -> Path:
        """After the child with GPU metrics has ended: `<run>/metrics.sqlite`. UserError if it is unusable."""

    def finish_replay(self, run: Path) -> Path:
        """After the further child has ended: what was measured. UserError if nothing was."""

    def window(self, device: str, run: Path) -> AbstractContextManager[None]:
        """In the child, around the traced iterations."""

    def annotator(self) -> Annotator:
        """In the child: what makes phases visible to this backend."""


class TimelineOnly:
    """The part of a backend that has no further children."""

    def sample_command(self, child: Sequence[str], run: Path, device: str) -> list[str]:
        return []

    def finish_sample(self, run: Path) -> Path:
        raise ValueError(f"{type(self).__name__} samples no GPU metrics")

    def replay_command(self, child: Sequence[str], run: Path) -> list[str]:
        return []

    def finish_replay(self, run: Path) -> Path:
        raise ValueError(f"{type(self).__name__} replays no kernels")

    def can_be_asked_again(self, said: str) -> bool:
        return False

    def refusal(self, run: Path, log: str) -> UserError | None:
        return None
