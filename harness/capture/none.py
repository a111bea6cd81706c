"""No capture: latencies only, nothing is traced."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from harness.capture.base import TimelineOnly
from harness.phases import Annotator, NvtxAnnotator


class NoCapture(TimelineOnly):
    name = "none"

    def check(self, device: str) -> None:
        """Needs nothing."""

    def notes(self, device: str) -> list[str]:
        return []

    def command(self, child: Sequence[str], run: Path, device: str) -> list[str]:
        return []

    def finish(self, run: Path) -> Path:
        raise ValueError("capture=none records no trace")

    def window(self, device: str, run: Path) -> AbstractContextManager[None]:
        return nullcontext()

    def annotator(self) -> Annotator:
        return NvtxAnnotator()
