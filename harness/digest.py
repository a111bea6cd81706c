"""What the children recorded, analysed for a run: numbers and figures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import moved
from harness.errors import ExitCode, UserError
from harness.metrics import ERROR_RATES, FLOOR_MS, FLOOR_RATIO
from harness.phases import DECODE, DECODE_STEP, TOKENS
from harness.record import Record, day

PERFETTO_ROWS = 2_000_000  # of a trace that is still written for the viewer without being asked

# pandas and matplotlib take seconds to import: not before there is something to analyse.
if TYPE_CHECKING:
    from analysis import Account, Trace
    from analysis.html import Traced
    from analysis.memory import Memory
    from analysis.plots import Stamp


@dataclass(frozen=True)
class Subject:
    """Whose trace is analysed.

    ms_per_token: of its run, without a profiler; note: what a reader of its detail has to know; sampled: its
    recording with GPU metrics; kernels: what ncu measured; each only if it is there.
    """

    label: str
    ms_per_token: float | None
    note: str = ""
    sampled: Path | None = None
    kernels: Path | None = None


@dataclass(frozen=True)
class Digest:
    """What a trace says: `metrics` by flat name, `plots` as the paths of its figures, `detail` for a page.

    perfetto: the trace for ui.perfetto.dev, None if it is too long or was not asked for.
    """

    account: Account
    metrics: dict[str, float]
    plots: list[Path]
    detail: Traced
    perfetto: Path | None


def stamp_of(record: Record, profiled: bool) -> Stamp:
    """The caption of figures made from a run."""
    from analysis.plots import Stamp

    return Stamp(record.environment["machine"], record.code, day(record.started_utc), profiled)


def latency(child: dict[str, Any]) -> dict[str, float]:
    """The metrics of a child's timed iterations, see `analysis.latency`."""
    from analysis.latency import latency_metrics

    return latency_metrics(child["iterations"], child["workload"].get("audio_s", 0.0))


def error_rates(child: dict[str, Any]) -> dict[str, float]:
    """The metrics `wer` and `cer` of a child's transcripts, as shares; without those that are undefined."""
    found = child["word_errors"] or {}
    return {name: found[name] for name in ERROR_RATES if found.get(name) is not None}


def overhead(name: str, measured: dict[str, Any], traced: dict[str, Any]) -> dict[str, float]:
    """How much longer a token takes under the profiler, as a share (0.1: ten per cent), by that name."""
    plain, profiled = (latency(child).get("ms_per_token") for child in (measured, traced))
    return {name: profiled / plain - 1} if plain and profiled else {}


def by_token(metrics: dict[str, float], traced: dict[str, Any]) -> dict[str, float]:
    """The metrics of a trace, which knows steps: where a step gives several tokens, or none, its
    `*_per_token` become those of a token that the traced child counted."""
    iterations = traced["iterations"]
    steps = sum(len(one["phases"].get(DECODE_STEP, ())) for one in iterations)
    tokens = sum(one.get("counts", {}).get(TOKENS, 0) for one in iterations)
    if not (steps and tokens):
        return metrics
    return {
        name: value * steps / tokens if "_per_token" in name else value for name, value in metrics.items()
    }


def bytes_per_token(metrics: dict[str, float], sampled: dict[str, Any] | None) -> dict[str, float]:
    """What a decode phase moves as `decode.bytes_per_token`, by the tokens that the sampled child counted;
    empty where one of the two is unknown."""
    iterations = sampled["iterations"] if sampled else []
    phases = sum(len(one["phases"].get(DECODE, ())) for one in iterations)
    tokens = sum(one.get("counts", {}).get(TOKENS, 0) for one in iterations)
    moved = metrics.get("decode.bytes_per_phase")
    return {"decode.bytes_per_token": moved * phases / tokens} if moved and tokens else {}


def floor(child: dict[str, Any], gpu: dict[str, Any] | None) -> dict[str, float]:
    """The time that the bytes of a token take at the peak bandwidth of `gpu` (of `environment.gpu`), ms, and
    how many times that a token takes; empty where bytes, peak or tokens are unknown. A greedy decode step
    gives a token to each row of its batch."""
    floor = child["workload"].get("floor", {})
    least_bytes = floor.get("decode_step_bytes")
    peak_bps = (gpu or {}).get("memory_bandwidth_bps")
    ms_per_token = latency(child).get("ms_per_token")
    if not (least_bytes and peak_bps and ms_per_token):
        return {}
    floor_ms = least_bytes / floor.get("rows", 1) / peak_bps * 1e3
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


def digest(
    trace_path: Path, plots: Path, stamp: Stamp, subject: Subject, perfetto: Path | None = None
) -> Digest:
    """Analyse a trace and draw gaps, timeline and memory traffic into `plots`; with `perfetto` write it for
    ui.perfetto.dev there, unless it is too long. UserError (TRACE) if it has no GPU work."""
    from analysis import Trace, account, diagnose
    from analysis import plots as draw
    from analysis.memory import memory_metrics
    from analysis.metrics import metrics
    from analysis.step_metrics import step_metrics

    with _as_user_error(), Trace.open(trace_path) as trace:
        diagnose.require_gpu_work(trace)
        acc = account(trace)
        measured = moved.find(trace, acc, subject.sampled, subject.kernels)
        figures = {"gaps": draw.gaps(acc, stamp), "timeline": draw.timeline(trace, acc, stamp)}
        figures |= draw.memory_figures(measured, stamp)
        paths = [path for stem, figure in figures.items() for path in draw.save(figure, plots, stem)]
        found = metrics(acc)
        found |= step_metrics(trace, acc, found)
        shown = _detail(trace, acc, measured, subject)
        written = _perfetto(trace, acc, perfetto) if perfetto else None
    return Digest(acc, found | memory_metrics(measured), paths, shown, written)


def detail(trace_path: Path, subject: Subject) -> Traced:
    """What a page shows of one trace among others, without its memory traffic."""
    from analysis import Trace, account

    with _as_user_error(), Trace.open(trace_path) as trace:
        return _detail(trace, account(trace), None, subject)


def _detail(trace: Trace, acc: Account, measured: Memory | None, subject: Subject) -> Traced:
    from analysis import html

    return html.traced(
        trace, acc, subject.label, memory=measured, ms_per_token=subject.ms_per_token, note=subject.note
    )


def _perfetto(trace: Trace, acc: Account, path: Path) -> Path | None:
    from analysis import perfetto

    rows = len(trace.work) + len(trace.api) + len(trace.ranges)
    return perfetto.write(trace, acc, path) if rows < PERFETTO_ROWS else None


@contextmanager
def _as_user_error() -> Iterator[None]:
    from analysis import TraceError

    try:
        yield
    except TraceError as error:
        raise UserError(str(error), error.hint, ExitCode.TRACE) from None
