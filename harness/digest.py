"""What the children recorded, analysed for a run: numbers and figures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import ExitCode, UserError
from harness.metrics import ERROR_RATES, OVERHEAD

# pandas and matplotlib take seconds to import: not before there is something to analyse.
if TYPE_CHECKING:
    from analysis import Account
    from analysis.plots import Stamp


@dataclass(frozen=True)
class Digest:
    """What a trace says: `metrics` by flat name, `plots` as the paths of its figures."""

    account: Account
    metrics: dict[str, float]
    plots: list[Path]


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


def latency_plot(child: dict[str, Any], plots: Path, stamp: Stamp) -> list[Path]:
    """Draw the latencies of a child into `plots`."""
    from analysis import plots as draw

    return draw.save(draw.latency(child["iterations"], stamp), plots, "latency")


def host_account(trace_path: Path) -> Account:
    """The account of a trace without GPU work: phases with host time, and warnings."""
    from analysis import Trace, account

    with _as_user_error(), Trace.open(trace_path) as trace:
        return account(trace)


def digest(trace_path: Path, plots: Path, stamp: Stamp) -> Digest:
    """Analyse a trace and draw gaps and timeline into `plots`. UserError (TRACE) if it has no GPU work."""
    from analysis import Trace, account, diagnose
    from analysis import plots as draw
    from analysis.metrics import metrics

    with _as_user_error(), Trace.open(trace_path) as trace:
        diagnose.require_gpu_work(trace)
        acc = account(trace)
        paths = draw.save(draw.gaps(acc, stamp), plots, "gaps")
        paths += draw.save(draw.timeline(trace, acc, stamp), plots, "timeline")
    return Digest(acc, metrics(acc), paths)


@contextmanager
def _as_user_error() -> Iterator[None]:
    from analysis import TraceError

    try:
        yield
    except TraceError as error:
        raise UserError(str(error), error.hint, ExitCode.TRACE) from None
