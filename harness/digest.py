"""What the children recorded, analysed for a run: numbers and figures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import ExitCode, UserError
from harness.metrics import ERROR_RATES, FLOOR_MS, FLOOR_RATIO, OVERHEAD

# pandas and matplotlib take seconds to import: not before there is something to analyse.
if TYPE_CHECKING:
    from analysis import Account, Trace
    from analysis.html import Traced
    from analysis.memory import Memory
    from analysis.plots import Stamp


@dataclass(frozen=True)
class Subject:
    """Whose trace is analysed. ms_per_token: of its run, without a profiler; note: what a reader of its
    detail has to know; kernels: what ncu measured, if it did."""

    label: str
    ms_per_token: float | None
    note: str = ""
    kernels: Path | None = None


@dataclass(frozen=True)
class Digest:
    """What a trace says: `metrics` by flat name, `plots` as the paths of its figures, `detail` for a page."""

    account: Account
    metrics: dict[str, float]
    plots: list[Path]
    detail: Traced


def latency(child: dict[str, Any]) -> dict[str, float]:
    """The metrics of a child's timed iterations, see `analysis.latency`."""
    from analysis.latency import latency_metrics

    return latency_metrics(child["iterations"], child["workload"].get("audio_s", 0.0))


def error_rates(child: dict[str, Any]) -> dict[str, float]:
    """The metrics `wer` and `cer` of a child's transcripts, as shares; without those that are undefined."""
    found = child["word_errors"] or {}
    return {name: found[name] for name in ERROR_RATES if found.get(name) is not None}


def overhead(measured: dict[str, Any], traced: dict[str, Any]) -> dict[str, float]:
    """How much longer a token takes under the profiler, as a share (0.1: ten per cent)."""
    plain, profiled = (latency(child).get("ms_per_token") for child in (measured, traced))
    return {OVERHEAD: profiled / plain - 1} if plain and profiled else {}


def floor(child: dict[str, Any], gpu: dict[str, Any] | None) -> dict[str, float]:
    """The time that a decode step's bytes take at the peak bandwidth of `gpu` (of `environment.gpu`), ms, and
    how many times that a token takes; empty where bytes, peak or tokens are unknown."""
    least_bytes = child["workload"].get("floor", {}).get("decode_step_bytes")
    peak_bps = (gpu or {}).get("memory_bandwidth_bps")
    ms_per_token = latency(child).get("ms_per_token")
    if not (least_bytes and peak_bps and ms_per_token):
        return {}
    floor_ms = least_bytes / peak_bps * 1e3
    return {FLOOR_MS: floor_ms, FLOOR_RATIO: ms_per_token / floor_ms}


def latency_plot(child: dict[str, Any], plots: Path, stamp: Stamp) -> list[Path]:
    """Draw the latencies of a child into `plots`."""
    from analysis import plots as draw

    return draw.save(draw.latency(child["iterations"], stamp), plots, "latency")


def host_account(trace_path: Path) -> Account:
    """The account of a trace without GPU work: phases with host time, and warnings."""
    from analysis import Trace, account

    with _as_user_error(), Trace.open(trace_path) as trace:
        return account(trace)


def digest(trace_path: Path, plots: Path, stamp: Stamp, subject: Subject) -> Digest:
    """Analyse a trace and draw gaps and timeline into `plots`. UserError (TRACE) if it has no GPU work."""
    from analysis import Trace, account, diagnose
    from analysis import plots as draw
    from analysis.memory import memory_metrics
    from analysis.metrics import metrics
    from analysis.step_metrics import step_metrics

    with _as_user_error(), Trace.open(trace_path) as trace:
        diagnose.require_gpu_work(trace)
        acc = account(trace)
        paths = draw.save(draw.gaps(acc, stamp), plots, "gaps")
        paths += draw.save(draw.timeline(trace, acc, stamp), plots, "timeline")
        found = metrics(acc)
        found |= step_metrics(trace, acc, found)
        moved = _memory(trace, acc, subject.kernels)
        shown = _detail(trace, acc, moved, subject)
    return Digest(acc, found | memory_metrics(moved), paths, shown)


def detail(trace_path: Path, subject: Subject) -> Traced:
    """What a page shows of one trace among others: all but memory traffic, which takes longest."""
    from analysis import Trace, account

    with _as_user_error(), Trace.open(trace_path) as trace:
        return _detail(trace, account(trace), None, subject)


def _detail(trace: Trace, acc: Account, moved: Memory | None, subject: Subject) -> Traced:
    from analysis import html

    return html.traced(
        trace, acc, subject.label, memory=moved, ms_per_token=subject.ms_per_token, note=subject.note
    )


def _memory(trace: Trace, acc: Account, kernels: Path | None) -> Memory:
    """Memory traffic by the samples in the trace; what ncu measured counts for more."""
    from analysis.memory import memory, merge, ncu

    sampled = memory(trace, acc)
    return merge(sampled, ncu.read(kernels)) if kernels else sampled


@contextmanager
def _as_user_error() -> Iterator[None]:
    from analysis import TraceError

    try:
        yield
    except TraceError as error:
        raise UserError(str(error), error.hint, ExitCode.TRACE) from None
