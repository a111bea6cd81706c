"""Capture by Nsight Compute: every kernel of one decode step, beside the timeline of another backend.

ncu repeats each kernel until all counters are read, so it knows kernels and no gaps. A run has both: a traced
child under the `timeline` backend, then one of which a single decode step is measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from harness import ncu
from harness.capture.base import Capture
from harness.errors import ExitCode, UserError
from harness.phases import DECODE_STEP, Annotator, NvtxAnnotator

NCU_CSV = "ncu.csv"
STEP = 8  # the step that is measured, from 0: early, since under ncu all launches before it are slow, too


class NcuCapture:
    name = "ncu"

    def __init__(self, timeline: Capture) -> None:
        self._timeline = timeline

    def check(self, device: str) -> None:
        if device != "cuda":
            raise UserError(
                f"capture=ncu measures the kernels of a GPU, and this run is on the {device}",
                "capture=auto",
                ExitCode.MACHINE,
            )
        ncu.version(ncu.require())
        self._timeline.check(device)

    def notes(self, device: str) -> list[str]:
        return self._timeline.notes(device)

    def command(self, child: Sequence[str], run: Path, device: str) -> list[str]:
        return self._timeline.command([*child, "--capture", self._timeline.name], run, device)

    def sample_command(self, child: Sequence[str], run: Path, device: str) -> list[str]:
        return self._timeline.sample_command([*child, "--capture", self._timeline.name], run, device)

    def replay_command(self, child: Sequence[str], run: Path) -> list[str]:
        return ncu.replay_command(ncu.require(), child, run / NCU_CSV)

    def can_be_asked_again(self, said: str) -> bool:
        return self._timeline.can_be_asked_again(said)

    def refusal(self, run: Path, log: str) -> UserError | None:
        try:
            if (run / NCU_CSV).exists():
                ncu.check(run / NCU_CSV)
        except UserError as error:
            return error
        return self._timeline.refusal(run, log)

    def finish(self, run: Path) -> Path:
        return self._timeline.finish(run)

    def finish_sample(self, run: Path) -> Path:
        return self._timeline.finish_sample(run)

    def finish_replay(self, run: Path) -> Path:
        ncu.check(run / NCU_CSV)
        return run / NCU_CSV

    def window(self, device: str, run: Path) -> AbstractContextManager[None]:
        return self._timeline.window(device, run)

    def annotator(self) -> Annotator:
        return self._timeline.annotator()


class StepDone(Exception):
    """The wanted decode step is over: what is left of the iteration would only cost time."""


class OneStep(NvtxAnnotator):
    """Ranges as ever, and the profiler's window around the decode step `number`, from 0; after it
    StepDone is raised. `steps`: decode steps that began.
    """

    def __init__(self, number: int) -> None:
        self._number = number
        self._open: list[bool] = []  # of each open range, whether the window is around it
        self.steps = 0

    def push(self, name: str, payload: int | None = None) -> None:
        wanted = name == DECODE_STEP and self.steps == self._number
        self.steps += name == DECODE_STEP
        self._open.append(wanted)
        if wanted:
            _cuda().synchronize()  # what was launched before belongs to other steps
            _cuda().profiler.start()
        super().push(name, payload)

    def pop(self) -> None:
        super().pop()
        if self._open.pop():
            _cuda().synchronize()
            _cuda().profiler.stop()
            raise StepDone


def _cuda() -> Any:
    import torch

    return torch.cuda
