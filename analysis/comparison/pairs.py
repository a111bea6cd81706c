"""Two subjects compared in full, as tables or as JSON: `python -m analysis compare A B --json`.

    comparisons[]        B against A, one per pair
    a, b                 name, path
    sentence             the finding
    warnings[]           sentences
    latencies[]          changes of the latencies without a profiler, empty where one wasn't timed
    trace                null where one has no GPU work; or, in µs per repetition of `unit`:
      unit, counts       "decode step", "iteration", a range's name or "trace", and how many there are of
                         it; null and [0, 0] where nothing that repeats is known to be the same work in both
      gpus               at work in that unit in a and b; times are summed over them
      total, parts[]     busy + idle, a change, null without unit; busy and idle by cause, which add up to it
      others[]           idle_share, kernels
      phases[]           busy + idle of one occurrence of each phase that is the same work in both
      left_out[]         the other phases: phase, why
      kernels[]          name, shape, kind, calls [a, b], and the change of their time; kernels_in_all

A change has metric, a, b, delta (b − a), ratio (b/a − 1), each with value, low, high (95%, null without) and
n; unstable; and repetitions, what the intervals are over, "" for single or recorded numbers.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from analysis import diagnose
from analysis.comparison import numbers, profiling, sides, subjects
from analysis.comparison.numbers import Change
from analysis.comparison.sentence import sentence
from analysis.comparison.sides import Side, TraceChanges
from analysis.comparison.subjects import Subject
from analysis.errors import TraceError
from analysis.reading.trace import Trace


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
        return Side.of(subject, trace)


def _comparison(a: Subject, b: Subject, traces: TraceChanges | None, warnings: list[str]) -> Comparison:
    latencies = numbers.latencies(a, b)
    if not latencies and not (traces and (traces.total or traces.phases)):
        raise TraceError(
            f"{a.name} and {b.name} have nothing in common to compare: no latencies and no traces of both",
            "give two runs, or two traces",
        )
    warnings = warnings + numbers.recorded(a, b, latencies) + (traces.warnings if traces else [])
    opposite = profiling.contradiction(a, b, latencies, traces)
    said = sentence(a.name, b.name, latencies, traces, contradicted=opposite is not None)
    return Comparison(a, b, said, latencies, traces, [*warnings, opposite] if opposite else warnings)
