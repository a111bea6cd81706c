"""Metrics of a traced decode step, and how well the trace knows its headline numbers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from analysis.accounting.account import Account
from analysis.accounting.phases import DECODE, HARNESS_DOMAIN
from analysis.reading.trace import Trace
from analysis.repetitions import ITERATIONS, STEPS, Repeats, idle_share, units
from analysis.statistics import Estimate, Sample, estimate, flat, ratio_of


def step_metrics(trace: Trace, acc: Account, metrics: Mapping[str, float]) -> dict[str, float]:
    """What `analysis.metrics` can't know without the trace.

    busy_ms_per_token and idle_ms_per_token: of the decode phase, per step. The 95% intervals `.low` and
    `.high` of these and, where `metrics` has them, of decode.idle_share and kernels_per_token (over decode
    steps) and idle_share (over iterations); none from fewer than six (see `analysis.statistics`).
    """
    repeats, known = Repeats(trace, acc), units(acc.phases)
    found: dict[str, float] = {}
    if STEPS in known:
        table = repeats.of(STEPS)
        ones = np.ones(len(table))
        for name in ("busy", "idle"):
            found |= flat(f"{name}_ms_per_token", estimate(ratio_of(table[f"{name}_ns"], 1e6 * ones)))
        found |= _limits(metrics, "kernels_per_token", ratio_of(table["kernels"], ones))
        if (HARNESS_DOMAIN, DECODE) in known:
            found |= _limits(metrics, "decode.idle_share", idle_share(table))
    if ITERATIONS in known:
        found |= _limits(metrics, "idle_share", idle_share(repeats.of(ITERATIONS)))
    return found


def _limits(metrics: Mapping[str, float], name: str, sample: Sample) -> dict[str, float]:
    """The interval around the metric's own value, which counts what lies between repetitions as well."""
    if name not in metrics:
        return {}
    own, of_sample = float(metrics[name]), estimate(sample)
    if of_sample.low is None or of_sample.high is None:
        return {}
    off = own - of_sample.value
    moved = Estimate(own, of_sample.low + off, of_sample.high + off, of_sample.n)
    return {key: value for key, value in flat(name, moved).items() if key != name}
