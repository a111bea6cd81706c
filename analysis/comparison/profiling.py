"""Where the profiler decides which of two runs looks faster, and not the runs."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.comparison.numbers import Change
from analysis.comparison.sides import TraceChanges
from analysis.comparison.subjects import Subject
from analysis.repetitions import ITERATIONS, STEPS, label

OVERHEAD = "profiling_overhead"  # traced ms_per_token over that without a profiler, − 1
_UNPROFILED = {label(STEPS): ("ms_per_token", "token"), label(ITERATIONS): ("total_ms", "iteration")}


def contradiction(
    a: Subject, b: Subject, latencies: Sequence[Change], traces: TraceChanges | None
) -> str | None:
    """A warning where traced times clearly say the opposite of those without a profiler, else None."""
    metric, what = _UNPROFILED.get((traces and traces.unit) or "", ("", ""))
    plain = next((one for one in latencies if one.metric == metric), None)
    if plain is None or not traces or not traces.total or not traces.says_which_is_faster:
        return None
    if not (plain.clear and traces.total.clear):
        return None
    traced_faster = traces.total.delta.value < 0
    if traced_faster == (plain.delta.value < 0):
        return None
    words = ("faster", "slower") if traced_faster else ("slower", "faster")
    return (
        f"traced, {b.name} is {words[0]}, and without a profiler {words[1]} per {what}: {_overhead(a, b)}; "
        "causes of idle time from these traces don't explain the difference"
    )


def _overhead(a: Subject, b: Subject) -> str:
    mine, theirs = (one.metrics.get(OVERHEAD) for one in (a, b))
    if mine is None or theirs is None:
        return "the profiler doesn't slow both alike"
    if min(mine, theirs) < 0:  # a graph traced as one piece is no slower
        return (
            f"the profiler changes the time of a token by {mine:+.1%} in {a.name}, {theirs:+.1%} in {b.name}"
        )
    return f"the profiler slows a token by {mine:.0%} in {a.name} and by {theirs:.0%} in {b.name}"
