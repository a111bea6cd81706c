"""What a capture backend is."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from harness.phases import Annotator


class Capture(Protocol):
    """Records one traced child into `<run>/trace.sqlite`, in the schema of an nsys export."""

    name: str

    def check(self, device: str) -> None:
        """UserError (MACHINE) saying what is missing for a trace on `device` and what to do."""

    def command(self, child: Sequence[str], run: Path, device: str) -> list[str]:
        """The exact command line of the traced child; empty if nothing is traced."""

    def finish(self, run: Path) -> Path:
        """After the child has ended: `<run>/trace.sqlite`. UserError if there is no usable recording."""

    def window(self, device: str, run: Path) -> AbstractContextManager[None]:
        """In the child, around the traced iterations."""

    def annotator(self) -> Annotator:
        """In the child: what makes phases visible to this backend."""
