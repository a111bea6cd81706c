"""What became of the files of one call: its last line and its exit code."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from experiments.transcribe.results import Transcript
from harness.errors import ExitCode, UserError


class Tally:
    """Counts what was transcribed; what fails is said at once."""

    def __init__(self) -> None:
        self.skipped = 0
        self.exit_code = ExitCode.OK
        self._transcribed = 0
        self._failed = 0
        self._sound_s = 0.0
        self._took_s = 0.0

    def fail(self, error: UserError) -> None:
        """A file or folder that can't be used; the call's exit code is that of the first."""
        self._failed += 1
        self.exit_code = self.exit_code or error.exit_code
        print(error.report(), file=sys.stderr)

    def add(self, transcript: Transcript) -> None:
        self._transcribed += 1
        self._sound_s += transcript.dur_s

    @contextmanager
    def clock(self) -> Iterator[None]:
        """Time what is inside."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._took_s += time.perf_counter() - began

    def report(self, console: Console, into: Path | None) -> None:
        """One line: how many files, how fast, into which folder, how many were done before or failed."""
        parts = []
        if self._transcribed:
            factor = self._sound_s / self._took_s
            parts.append(
                f"{_files(self._transcribed)}, {self._sound_s:.1f} s of sound in {self._took_s:.1f} s: "
                f"{factor:.3g}× real time" + (f", into {into}" if into else "")
            )
        if self.skipped:
            parts.append(f"{_files(self.skipped)} done before (--force does them again)")
        if self._failed:
            parts.append(f"{self._failed} failed")
        console.print("; ".join(parts), markup=False)


def _files(count: int) -> str:
    return f"{count} file{'' if count == 1 else 's'}"
