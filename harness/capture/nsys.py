"""Capture by Nsight Systems."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from functools import cached_property
from importlib import metadata
from pathlib import Path

from analysis.reading.schema import NVTX_RANGES
from harness import gpu_metrics, nsys
from harness.capture.base import TimelineOnly
from harness.errors import ExitCode, UserError
from harness.phases import Annotator, NvtxAnnotator

_TRACE, _METRICS = "trace", "metrics"  # stems of the files in a run
_RANGES = f"eventType IN {NVTX_RANGES}"  # the others are domains and categories


class NsysCapture(TimelineOnly):
    """sampling: `auto`, `off` or Hz, of the GPU's hardware counters, in a recording of its own: they make the
    GPU faster than it is without, so the gaps of such a recording say nothing. graphs: see
    `nsys.profile_command`."""

    name = "nsys"

    def __init__(self, sampling: str | int = gpu_metrics.OFF, graphs: str = "node") -> None:
        self._sampling = sampling
        self._graphs = graphs

    def check(self, device: str) -> None:
        found = nsys.require()
        nsys.version(found)
        nsys.importer(found)
        if device == "cuda" and isinstance(self._sampling, int) and self._support.device is None:
            raise UserError(
                f"trace.gpu_metrics={self._sampling}, but nsys can't sample GPU metrics: {self._support.why}",
                f"trace.gpu_metrics=off; or {self._support.advice}",
                ExitCode.MACHINE,
            )

    def notes(self, device: str) -> list[str]:
        if device != "cuda" or self._sampling == gpu_metrics.OFF or self._support.device is not None:
            return []
        return [f"no GPU metrics, so nothing is known about memory bandwidth: {self._support.why}"]

    def command(self, child: Sequence[str], run: Path, device: str) -> list[str]:
        # Without a GPU there is no cudaProfilerStart: all of the child is recorded.
        window = device == "cuda"
        stem = run / _TRACE
        return nsys.profile_command(nsys.require(), child, stem, window=window, graphs=self._graphs)

    def sample_command(self, child: Sequence[str], run: Path, device: str) -> list[str]:
        extra = self._metrics_options(device)
        return nsys.profile_command(nsys.require(), child, run / _METRICS, True, extra) if extra else []

    def whole_command(self, program: Sequence[str], stem: Path) -> list[str]:
        """Of one recording of any program from begin to end into `<stem>.nsys-rep`, samples included."""
        extra = self._metrics_options("cuda")
        return nsys.profile_command(nsys.require(), program, stem, False, extra, self._graphs)

    def _metrics_options(self, device: str) -> list[str]:
        """Options of `nsys profile` that sample the GPU's counters; none if they are not to be or can't."""
        if device != "cuda" or self._sampling == gpu_metrics.OFF or self._support.device is None:
            return []
        hz = self._sampling if isinstance(self._sampling, int) else gpu_metrics.AUTO_HZ
        return self._support.arguments(hz)

    def can_be_asked_again(self, said: str) -> bool:
        return nsys.UNREACHABLE in said

    def refusal(self, run: Path, log: str) -> UserError | None:
        return gpu_metrics.refusal(log)

    @cached_property
    def _support(self) -> gpu_metrics.Support:
        return gpu_metrics.probe(nsys.require())

    def finish(self, run: Path) -> Path:
        return self._finish(run / _TRACE)

    def finish_sample(self, run: Path) -> Path:
        return self._finish(run / _METRICS)

    def _finish(self, stem: Path) -> Path:
        found = nsys.require()
        trace = nsys.finish(found, stem)
        check_ranges(trace, nsys.version(found))
        return trace

    @contextmanager
    def window(self, device: str, run: Path) -> Iterator[None]:
        if device != "cuda":
            yield
            return
        import torch

        torch.cuda.synchronize()
        torch.cuda.profiler.start()
        try:
            yield
        finally:
            torch.cuda.synchronize()
            torch.cuda.profiler.stop()

    def annotator(self) -> Annotator:
        return NvtxAnnotator()


def check_ranges(trace: Path, nsys_version: str) -> None:
    """UserError (MACHINE) if an export holds nothing, or NVTX domains but none of their ranges."""
    try:
        with closing(sqlite3.connect(f"{trace.absolute().as_uri()}?mode=ro", uri=True)) as export:
            tables = {name for (name,) in export.execute("SELECT name FROM sqlite_master")}
            nvtx = "NVTX_EVENTS" in tables and export.execute("SELECT 1 FROM NVTX_EVENTS LIMIT 1").fetchone()
            ranges = nvtx and export.execute(f"SELECT 1 FROM NVTX_EVENTS WHERE {_RANGES} LIMIT 1").fetchone()
    except sqlite3.DatabaseError as error:
        raise UserError(
            f"nsys wrote an export that can't be read ({error})", exit_code=ExitCode.MACHINE
        ) from None
    if ranges:
        return
    if nvtx:
        raise UserError(
            f"the trace shows NVTX domains, but none of their ranges: nsys {nsys_version} can't see those of "
            f"nvtx {metadata.version('nvtx')} (nvtx 0.2.12 and later need nsys 2024 or later)",
            "pip install nvtx==0.2.11, or a newer nsys",
            ExitCode.MACHINE,
        )
    # Tables that hold nothing are absent from an export.
    if not any(table.startswith("CUPTI_ACTIVITY_KIND_") for table in tables):
        raise UserError(
            f"nsys {nsys_version} wrote an empty report: no NVTX ranges and no CUDA work",
            "python -m harness.doctor, which tests this nsys; or capture=kineto",
            ExitCode.MACHINE,
        )
