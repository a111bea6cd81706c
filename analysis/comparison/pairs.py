"""Two subjects compared in full, and what came out in plain words."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from analysis import diagnose
from analysis.comparison import numbers, sides, subjects
from analysis.comparison.numbers import Change
from analysis.comparison.sides import Side, TraceChanges
from analysis.comparison.subjects import Subject
from analysis.errors import TraceError
from analysis.reading.trace import Trace

_HEADLINES = ("ms_per_token", "total_ms")
_CAUSES_SAID = 3
_WORTH_SAYING = 0.05  # of the change


@dataclass(frozen=True)
class Comparison:
    """B against A. `latencies` are unprofiled, `traces` is profiled (None where one has no trace)."""

    a: Subject
    b: Subject
    sentence: str
    latencies: list[Change]
    traces: TraceChanges | None
    warnings: list[str]

    def as_json(self) -> dict[str, Any]:
        who = {
            name: {"name": one.name, "path": str(one.path)} for name, one in (("a", self.a), ("b", self.b))
        }
        latencies = [one.as_json() for one in self.latencies]
        traces = self.traces.as_json() if self.traces else None
        return {
            **who,
            "sentence": self.sentence,
            "warnings": self.warnings,
            "latencies": latencies,
            "trace": traces,
        }


def compare(group: Sequence[Subject], *, force: bool) -> Iterator[Comparison]:
    """Each of the group against its first. Raises NotComparable before anything is analysed."""
    a, *others = group
    checked = [subjects.check(a, b, force=force) for b in others]
    with closing(_sides(group)) as found:
        first = next(found)
        for b, second, warnings in zip(others, found, checked, strict=True):
            traces = sides.compare(first, second) if first and second else None
            bare = [one.name for one, side in ((a, first), (b, second)) if side is None]
            untraced = [f"{name} has no GPU trace: causes, phases, kernels not compared" for name in bare]
            yield _comparison(a, b, traces, [*warnings, *untraced])


def _sides(group: Sequence[Subject]) -> Generator[Side | None, None, None]:
    """What there is of each subject's trace. One is analysed at a time and then forgotten; meanwhile the
    tables of the next are read, which is machine code and leaves the interpreter free."""
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(_read, group[0])
        for subject, following in zip_longest(group, group[1:]):
            trace = coming.result()
            if following is not None:
                coming = reader.submit(_read, following)
            yield _side(subject, trace)


def _read(subject: Subject) -> Trace | None:
    """Its trace with the large tables read, None if it has none."""
    if subject.trace is None:
        return None
    trace = Trace.open(subject.trace)
    for table in ("work", "api"):
        getattr(trace, table)
    return trace


def _side(subject: Subject, trace: Trace | None) -> Side | None:
    """None for a run without a trace, or on a CPU, whose trace has no GPU work."""
    if trace is None:
        return None
    with trace:
        if subject.record and trace.work.empty:
            return None
        diagnose.require_gpu_work(trace)
        return Side.of(subject.name, trace)


def _comparison(a: Subject, b: Subject, traces: TraceChanges | None, warnings: list[str]) -> Comparison:
    latencies = numbers.latencies(a, b)
    if not latencies and traces is None:
        raise TraceError(
            f"{a.name} and {b.name} have nothing in common to compare: no latencies and no traces of both",
            "give two runs, or two traces",
        )
    warnings = warnings + (traces.warnings if traces else [])
    return Comparison(a, b, sentence(a.name, b.name, latencies, traces), latencies, traces, warnings)


def sentence(a: str, b: str, latencies: Sequence[Change], traces: TraceChanges | None) -> str:
    """Like "B is 7.1x faster per token than A (6.84 → 0.964 ms); of the time saved per decode step, 97% is
    idle time that went away (66% `host`, 32% `launch`)"."""
    by_name = {one.metric: one for one in latencies}
    speed = next((by_name[name] for name in _HEADLINES if name in by_name), traces.total if traces else None)
    if speed is None:
        return f"{b} and {a} have no time in common"
    per = {"ms_per_token": "per token", "total_ms": "per iteration"}.get(speed.metric)
    per = per or f"per {traces.unit if traces else 'repetition'} (traced)"
    if not speed.clear:
        return f"{per[0].upper()}{per[1:]}, no difference between {b} and {a} can be told: {_interval(speed)}"
    x, y = speed.a.value, speed.b.value
    unit = "µs" if speed.metric.endswith("_us") else "ms"
    word = "faster" if y < x else "slower"
    said = f"{b} is {_factor(x, y)} {word} {per} than {a} ({x:.3g} → {y:.3g} {unit})"
    if traces and (y < x) == (traces.total.delta.value < 0) and traces.total.clear:
        said += f"; {_where(traces)}"
    return said


def _where(traces: TraceChanges) -> str:
    """What the traces say the saved or added time was."""
    total = traces.total.delta.value
    busy, *causes = traces.parts
    idle_share, busy_share = 1 - busy.delta.value / total, busy.delta.value / total
    saved, gone = ("saved", "that went away") if total < 0 else ("added", "that came")
    begin = f"of the time {saved} per {traces.unit}, "
    if busy_share > idle_share:
        return f"{begin}{busy_share:.0%} is GPU work {gone}"
    by_cause = sorted(causes, key=lambda one: -one.delta.value / total)[:_CAUSES_SAID]
    shares = [(one.metric.removesuffix("_us"), one.delta.value / total) for one in by_cause]
    said = ", ".join(f"{share:.0%} `{cause}`" for cause, share in shares if share > _WORTH_SAYING)
    return f"{begin}{idle_share:.0%} is idle time {gone} ({said})"


def _factor(x: float, y: float) -> str:
    ratio = max(x, y) / min(x, y) if min(x, y) > 0 else float("inf")
    return f"{ratio:.2f}x" if ratio < 2 else f"{ratio:.1f}x" if ratio < 100 else f"{ratio:.0f}x"


def _interval(change: Change) -> str:
    ratio = change.ratio
    if ratio.low is None or ratio.high is None:
        return f"{ratio.value:+.1%}"
    return f"{ratio.value:+.1%}, 95% interval {ratio.low:+.1%} to {ratio.high:+.1%}"
