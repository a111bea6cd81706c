"""Capture by torch.profiler (kineto), for machines without Nsight Systems."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata, util
from pathlib import Path

from harness.capture.base import TimelineOnly
from harness.capture.chrome import convert, read_chrome_trace, write_sqlite
from harness.errors import ExitCode, UserError
from harness.gpu_metrics import AUTO, OFF
from harness.phases import Annotator, RecordFunctionAnnotator

_CHROME_TRACE = "trace.json"


class KinetoCapture(TimelineOnly):
    name = "kineto"

    def __init__(self, gpu_metrics: str | int = OFF) -> None:
        self._gpu_metrics = gpu_metrics

    def check(self, device: str) -> None:
        if util.find_spec("torch") is None:
            raise UserError("torch is not installed", "make run, which sets up .venv", ExitCode.MACHINE)
        if device == "cuda" and self._gpu_metrics not in (AUTO, OFF):
            raise UserError(
                f"trace.gpu_metrics={self._gpu_metrics} needs nsys: torch.profiler samples no counters",
                "capture=nsys, which says why it can't be used; or trace.gpu_metrics=auto",
                ExitCode.MACHINE,
            )

    def notes(self, device: str) -> list[str]:
        if device == "cuda" and self._gpu_metrics == AUTO:
            return ["no GPU metrics: torch.profiler samples none, so nothing is known about memory bandwidth"]
        return []

    def command(self, child: Sequence[str], run: Path, device: str) -> list[str]:
        return list(child)

    def finish(self, run: Path) -> Path:
        recorded = run / _CHROME_TRACE
        if not recorded.exists():
            raise UserError(
                f"torch.profiler wrote no trace ({recorded} is missing)",
                f"see {run}/log.txt",
                ExitCode.MACHINE,
            )
        tables = convert(read_chrome_trace(recorded), metadata.version("torch"))
        trace = write_sqlite(tables, run / "trace.sqlite")
        recorded.unlink()
        return trace

    @contextmanager
    def window(self, device: str, run: Path) -> Iterator[None]:
        from torch.profiler import ProfilerActivity, profile, supported_activities

        activities = [ProfilerActivity.CPU]
        if device == "cuda":
            if ProfilerActivity.CUDA not in supported_activities():
                raise UserError(
                    "this build of torch can't record CUDA work (it has no CUPTI)",
                    "capture=nsys, or a CUDA build of torch",
                    ExitCode.MACHINE,
                )
            activities.append(ProfilerActivity.CUDA)
        with profile(activities=activities) as profiler:  # leaving it synchronises the device
            yield
        profiler.export_chrome_trace(str(run / _CHROME_TRACE))

    def annotator(self) -> Annotator:
        return RecordFunctionAnnotator()
