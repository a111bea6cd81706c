"""`check`: whether a run is worse than its baseline by more than a limit, or too noisy to tell.

A change c with the 95% interval [low, high] is held against how much a metric may rise (against how much it
may fall with all signs turned):

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
from enum import StrEnum
from typing import Any

from analysis.comparison import numbers
from analysis.comparison.numbers import Change
from analysis.comparison.subjects import Subject
from analysis.reading.source import RECORD
from analysis.statistics import MIN_SAMPLES, Estimate

FINE, REGRESSION, NOISY = "fine", "regression", "noisy"
LATENCY = "latency"  # stands for those of these that the runs have
_LATENCIES = ("ms_per_token", "total_ms")
_HEADLINE = (LATENCY, *_LATENCIES, "decode.idle_share", "kernels_per_token", "token_agreement", "wer")
_NAMED = 5  # metrics in a hint
_BLIND_BEYOND = 2.0  # limits
_LIMIT = re.compile(
    r"(?P<metric>[^=\s]+)=(?P<number>[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?)(?P<unit>%|pt)?", re.I
)


class Side(StrEnum):
    """Which end of a metric is limited: how much it may rise, or how much it may fall."""

    MAX = "max"
    MIN = "min"


class WrongLimit(Exception):
    """A limit that these runs can't be held against, and in `hint` what can be."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True)
class Limit:
    """How much a metric may change: by `bound` of its value (`relative`), or in its own unit."""

    metric: str
    side: Side
    bound: float
    relative: bool
    text: str  # as the user wrote it, with a sign, for it is no bound of the metric itself

    def judge(self, change: Estimate) -> str:
        """FINE, REGRESSION or NOISY."""
        if self.side is Side.MAX:
            return judge(change, self.bound)
        low, high = (None if end is None else -end for end in (change.high, change.low))
        return judge(Estimate(-change.value, low, high, change.n), -self.bound)

    def as_json(self) -> dict[str, Any]:
        key = "most" if self.side is Side.MAX else "least"
        return {"text": self.text, key: self.bound, "relative": self.relative}


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
        low, high = self.measured.low, self.measured.high
        if low is None or high is None:
            return None
        return self.limit.bound + self.measured.value - (low if self.limit.side is Side.MAX else high)

    def as_json(self) -> dict[str, Any]:
        return {
            "verdict": self.verdict,
            "limit": self.limit.as_json(),
            "noticeable": self.noticeable,
            **self.change.as_json(),
        }


def parse(text: str, side: Side = Side.MAX) -> Limit:
    """`latency=+5%` (relative), `idle_share=+2pt` (points of a share: 0.02), `kernels_per_token=+10` (plain).

    A sign may be left out: what is written is then how much worse the metric may get.

    Raises ValueError with what was expected.
    """
    found = _LIMIT.fullmatch(text)
    number = float(found["number"]) if found else math.nan
    if not found or not math.isfinite(number):
        raise ValueError(f"{text!r} is not METRIC=LIMIT, like latency=+5%, idle_share=+2pt or total_ms=+3.5")
    metric, written = found["metric"], text.partition("=")[2]
    unit = found["unit"] and found["unit"].lower()
    if unit == "pt" and not numbers.is_share(metric):
        raise ValueError(f"{metric} is no share, and pt are points of one: {metric}=5%, or a plain number")
    better = numbers.more_is_better(metric)
    if better is not None and better == (side is Side.MAX):
        more, other = ("more", Side.MIN) if better else ("less", Side.MAX)
        raise ValueError(f"{more} is better for {metric}: use --{other} {metric}={written.lstrip('+-')}")
    if written[0] not in "+-":
        written, number = (f"+{written}", number) if side is Side.MAX else (f"-{written}", -number)
    return Limit(metric, side, number / 100 if unit else number, relative=unit == "%", text=written)


def hold(limit: Limit, baseline: Subject, run: Subject) -> list[Outcome]:
    """Hold one metric of a run against its baseline's; `latency` stands for several.

    Raises WrongLimit, and TraceError for numbers that can't be: NaN, or a time that isn't positive.
    """
    metrics = [limit.metric]
    if limit.metric == LATENCY:
        timed = {*numbers.names(baseline), *numbers.names(run)}
        metrics = [name for name in _LATENCIES if name in timed] or metrics
    return [_hold(limit, metric, baseline, run) for metric in metrics]


def _hold(limit: Limit, metric: str, baseline: Subject, run: Subject) -> Outcome:
    # What users write out, like ms_per_token.p90, is in run.json beside the headline numbers.
    has = [metric in numbers.names(one) or metric in one.metrics for one in (baseline, run)]
    if not all(has):
        raise _unknown(metric, baseline, run, has)
    found = numbers.of_metric(baseline, run, metric)
    for one, measured in ((baseline, found.a), (run, found.b)):
        if numbers.is_latency(metric) and not measured.value > 0:
            raise numbers.damaged(one, metric, measured.value)
    if limit.relative and found.a.value < 0:
        raise WrongLimit(
            f"{metric} of {baseline.name} is {found.a.value:.4g}, and % of a negative number mean nothing",
            f"--{limit.side} {metric}=LIMIT in {'pt' if found.is_share else 'its own unit'}",
        )
    verdict = limit.judge(found.ratio if limit.relative else found.delta)
    if verdict == REGRESSION and numbers.is_latency(metric) and found.delta.low is None:
        verdict = NOISY  # times always have noise, even where nobody recorded how much
    return Outcome(limit, found, verdict)


def _unknown(metric: str, baseline: Subject, run: Subject, has: Sequence[bool]) -> WrongLimit:
    """The error of a metric that one of the runs doesn't have; the hint names the nearest that both have."""
    lacking = list(
        dict.fromkeys(one.name for one, it_has in zip((baseline, run), has, strict=True) if not it_has)
    )
    known = [LATENCY, *(name for name in numbers.names(baseline) if name in numbers.names(run))]
    near = get_close_matches(metric, known, n=_NAMED) + [name for name in known if metric in name]
    near = list(dict.fromkeys(near))[:_NAMED] or [name for name in _HEADLINE if name in known]
    return WrongLimit(
        f"{' and '.join(lacking)} {'have' if len(lacking) > 1 else 'has'} no metric {metric}",
        f"{', '.join(near)}; the others are the metrics in {run.path / RECORD}",
    )


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
