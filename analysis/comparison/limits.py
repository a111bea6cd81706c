"""`check`: whether a run is worse than its baseline by more than a limit, or too noisy to tell.

A change c with the 95% interval [low, high] is held against a limit:

- regression  low > limit: even the lowest plausible change is above the limit;
- noisy       not that, but c > limit; or high > limit and c − low > 2·limit, so that a regression of three
              times the limit would have gone unnoticed;
- fine        everything else.

A run against itself is then no regression in at least 97.5% of cases for independent iterations, whatever the
limit; and as noise alone seldom moves a median by a limit of 5%, it is fine in more than 95% of cases even
with drift, bursts and outliers (tests/analysis/test_compare_check.py has the simulation).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from analysis.comparison import numbers
from analysis.comparison.numbers import Change
from analysis.comparison.subjects import Subject
from analysis.statistics import MIN_SAMPLES, Estimate

FINE, REGRESSION, NOISY = "fine", "regression", "noisy"
LATENCY = "latency"  # stands for the first of these that both runs have
_LATENCIES = ("ms_per_token", "total_ms")
_BLIND_BEYOND = 2.0  # limits
_LIMIT = re.compile(
    r"(?P<metric>[^=\s]+)=(?P<number>[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?)(?P<unit>%|pt)?", re.I
)


class UnknownMetric(Exception):
    """A metric that one of the runs doesn't have; `hint` names those that both have, the nearest first."""

    def __init__(self, metric: str, lacking: Sequence[str], known: Sequence[str]) -> None:
        runs = list(dict.fromkeys(lacking))
        super().__init__(f"{' and '.join(runs)} {'have' if len(runs) > 1 else 'has'} no metric {metric}")
        near = get_close_matches(metric, known, n=1)
        self.hint = "; ".join([*near, f"one of: {', '.join(known)}"])


@dataclass(frozen=True)
class Limit:
    """How much a metric may rise: `most` of its value (`relative`), or in its own unit."""

    metric: str
    most: float
    relative: bool
    text: str  # as the user wrote it, with a sign, for it is no bound of the metric itself


@dataclass(frozen=True)
class Outcome:
    """A limit, the change that was measured, and what follows: FINE, REGRESSION or NOISY."""

    limit: Limit
    change: Change
    verdict: str

    @property
    def measured(self) -> Estimate:
        return self.change.ratio if self.limit.relative else self.change.delta

    @property
    def noticeable(self) -> float | None:
        """The smallest change that would have counted as a regression; None without interval."""
        low = self.measured.low
        return None if low is None else self.limit.most + self.measured.value - low

    def as_json(self) -> dict[str, Any]:
        limit = {"text": self.limit.text, "most": self.limit.most, "relative": self.limit.relative}
        return {
            "verdict": self.verdict,
            "limit": limit,
            "noticeable": self.noticeable,
            **self.change.as_json(),
        }


def parse(text: str) -> Limit:
    """`latency=+5%` (relative), `idle_share=+2pt` (points of a share: 0.02), `kernels_per_token=+10` (plain).

    A sign may be left out.

    Raises ValueError with what was expected.
    """
    found = _LIMIT.fullmatch(text)
    number = float(found["number"]) if found else math.nan
    if not found or not math.isfinite(number):
        raise ValueError(f"{text!r} is not METRIC=LIMIT, like latency=+5%, idle_share=+2pt or total_ms=+3.5")
    most = number / 100 if found["unit"] else number
    written = text.partition("=")[2]
    signed = written if written[0] in "+-" else f"+{written}"
    return Limit(found["metric"], most, relative=found["unit"] == "%", text=signed)


def hold(limit: Limit, baseline: Subject, run: Subject) -> Outcome:
    """Hold one metric of a run against its baseline's.

    Raises UnknownMetric, and TraceError for numbers that can't be: NaN, or a time that isn't positive.
    """
    known = [name for name in numbers.names(baseline) if name in numbers.names(run)]
    metric = limit.metric
    if metric == LATENCY:
        metric = next((name for name in _LATENCIES if name in known), LATENCY)
    # What users write out, like ms_per_token.p90, is in run.json beside the headline numbers.
    lacking = [
        one.name for one in (baseline, run) if metric not in numbers.names(one) and metric not in one.metrics
    ]
    if lacking:
        raise UnknownMetric(limit.metric, lacking, [LATENCY, *known])
    found = numbers.of_metric(baseline, run, metric)
    for one, measured in ((baseline, found.a), (run, found.b)):
        if numbers.is_latency(metric) and not measured.value > 0:
            raise numbers.damaged(one, metric, measured.value)
    verdict = judge(found.ratio if limit.relative else found.delta, limit.most)
    if verdict == REGRESSION and numbers.is_latency(metric) and found.delta.low is None:
        verdict = NOISY  # times always have noise, even where nobody recorded how much
    return Outcome(limit, found, verdict)


def judge(change: Estimate, most: float) -> str:
    """FINE, REGRESSION or NOISY, as the module says.

    Without interval the value alone decides, for there may be no noise in it (kernels, word errors); only
    where there are a few repetitions, too few for an interval, an exceeded limit is NOISY.
    """
    if change.low is None or change.high is None:
        if not change.value > most:
            return FINE
        return NOISY if 1 < change.n < MIN_SAMPLES else REGRESSION
    if change.low > most:
        return REGRESSION
    blind = change.high > most and change.value - change.low > _BLIND_BEYOND * abs(most)
    return NOISY if change.value > most or blind else FINE


def worst(outcomes: Sequence[Outcome]) -> str:
    """The verdict on all limits together: a regression outweighs noise."""
    found = {outcome.verdict for outcome in outcomes}
    return next((verdict for verdict in (REGRESSION, NOISY) if verdict in found), FINE)
