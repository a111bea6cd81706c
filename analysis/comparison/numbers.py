"""The metrics of two runs beside each other, each with the interval of its change."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from analysis.comparison.records import is_finite
from analysis.comparison.subjects import Subject
from analysis.errors import TraceError
from analysis.latency import PHASES, latency_samples
from analysis.statistics import (
    Estimate,
    Sample,
    change,
    change_of_estimates,
    estimate,
    median_of,
)

LATENCIES = ("total_ms", *(f"{phase}_ms" for phase in PHASES), "ms_per_token", "real_time_factor")
_PARTS_OF_METRICS = (".low", ".high", ".p25", ".p75")
_SHARES = {"share", "wer", "cer", "agreement", "acceptance", "overhead"}  # words of metrics that are shares
_MORE_IS_BETTER = {"agreement", "acceptance", "speedup"}  # and tokens_per_round
_LESS_IS_BETTER = {"latency", "ms", "us", "idle", "gap", "wer", "cer", "overhead"}
_UNITS = {"ms": "ms", "us": "µs", "gbps": "GB/s", "bytes": "B"}  # by words of the metric
_TRACED = {"idle", "busy", "gap", "kernels"}  # words of metrics that a trace told


@dataclass(frozen=True)
class Change:
    """One number in two subjects. `delta` is b − a and `ratio` b/a − 1, each with its interval.

    repetitions: what the intervals are over ("iterations", "decode steps"), "" if there is but one value.
    unit: where `metric` is a name from a trace (of a phase), which says nothing about it.
    """

    metric: str
    a: Estimate
    b: Estimate
    delta: Estimate
    ratio: Estimate
    repetitions: str = ""
    unit: str = ""

    @property
    def is_share(self) -> bool:
        return not self.unit and is_share(self.metric)

    @property
    def is_traced(self) -> bool:
        return not _TRACED.isdisjoint(_words(self.metric))

    @property
    def clear(self) -> bool:
        """Whether the interval of the change leaves out zero; without an interval, whether there is one."""
        if self.delta.low is None or self.delta.high is None:
            return self.delta.value != 0
        return not self.delta.low <= 0 <= self.delta.high

    def as_json(self) -> dict[str, Any]:
        estimates = {name: asdict(getattr(self, name)) for name in ("a", "b", "delta", "ratio")}
        flags = {"unstable": self.a.unstable or self.b.unstable, "repetitions": self.repetitions}
        return {"metric": self.metric, **estimates, **flags}


def is_latency(metric: str) -> bool:
    """Whether a metric is a time without a profiler, or a quantile of one: never without noise."""
    return re.sub(r"\.(p\d+|low|high)$", "", metric) in LATENCIES


def is_share(metric: str) -> bool:
    """Whether a metric is a share or a rate, whose changes are in points."""
    return not _SHARES.isdisjoint(_words(metric))


def more_is_better(metric: str) -> bool | None:
    """Whether a metric is better when it is larger; None where that depends, as for kernels or bytes."""
    if metric == "tokens_per_round" or not _MORE_IS_BETTER.isdisjoint(_words(metric)):
        return True
    return False if is_latency(metric) or not _LESS_IS_BETTER.isdisjoint(_words(metric)) else None


def unit(metric: str) -> str:
    """The unit that a metric's name tells, "" for shares and plain numbers."""
    return next((_UNITS[word] for word in _words(metric) if word in _UNITS), "")


def _words(metric: str) -> list[str]:
    return re.split(r"[._]", metric)


def of_samples(
    metric: str, a: Sample, b: Sample, repetitions: str, *, paired: bool | None = None, unit: str = ""
) -> Change:
    """The change of a number whose repetitions are at hand."""
    delta, ratio = (change(a, b, relative=relative, paired=paired) for relative in (False, True))
    return Change(metric, estimate(a), estimate(b), delta, ratio, repetitions, unit)


def of_estimates(metric: str, a: Estimate, b: Estimate) -> Change:
    """The change of a number of which only the estimates are known."""
    delta, ratio = (change_of_estimates(a, b, relative=relative) for relative in (False, True))
    return Change(metric, a, b, delta, ratio)


def samples(subject: Subject) -> dict[str, Sample]:
    """Its latency metrics, one value per iteration."""
    found = latency_samples(subject.iterations, float(subject.workload.get("audio_s") or 0.0))
    return {name: median_of(values) for name, values in found.items()}


def names(subject: Subject) -> list[str]:
    """The metrics that it has, headline numbers without their quartiles and limits."""
    every = [*samples(subject), *subject.metrics]
    return list(dict.fromkeys(name for name in every if not name.endswith(_PARTS_OF_METRICS)))


def latencies(a: Subject, b: Subject) -> list[Change]:
    """The latency metrics that both were timed for."""
    mine, theirs = samples(a), samples(b)
    if mine and theirs:
        return [of_metric(a, b, name) for name in mine if name in theirs]
    shared = [name for name in names(a) if name in names(b)]
    return [of_metric(a, b, name) for name in shared if name in LATENCIES]


def recorded(a: Subject, b: Subject, changes: Sequence[Change]) -> list[str]:
    """A warning where latencies are not compared by iterations, because one left none."""
    if not any(one.metric in LATENCIES and not one.repetitions for one in changes):
        return []
    lacking = dict.fromkeys(one.name for one in (a, b) if not samples(one))
    who = " and ".join(lacking) or f"{a.name} or {b.name}"
    return [
        f"{who}: no such iterations in measure.json, so latencies are compared by the medians and intervals "
        "in run.json, taken as independent"
    ]


def of_metric(a: Subject, b: Subject, metric: str) -> Change:
    """The change of one metric; KeyError if one of the two has no such number, TraceError if it is NaN."""
    mine, theirs = samples(a), samples(b)
    if metric in mine and metric in theirs:
        alike = a.sources is not None and a.sources == b.sources
        paired = alike and len(mine[metric]) == len(theirs[metric])
        return of_samples(metric, mine[metric], theirs[metric], "iterations", paired=paired)
    return of_estimates(metric, _recorded(a, metric), _recorded(b, metric))


def damaged(subject: Subject, metric: str, value: float) -> TraceError:
    """The error of a run whose number can't be one."""
    return TraceError(
        f"{metric} of {subject.name} is {value}, which nothing can be held against ({subject.path})",
        "analyse or run the scope again, or name another metric",
    )


def _recorded(subject: Subject, metric: str) -> Estimate:
    """A number of run.json, with the interval that it was recorded with."""
    found = [subject.metrics[metric], *(subject.metrics.get(f"{metric}.{end}") for end in ("low", "high"))]
    for value in found:
        if value is not None and not is_finite(value):
            raise damaged(subject, metric, value)
    value, low, high = found
    assert value is not None
    return Estimate(value, low, high, n=1)
