"""Latency from the timed iterations of a run without a profiler (measure.json)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from analysis.accounting.phases import DECODE_STEP
from analysis.statistics import estimate, flat, median_of

# {"iter_ns": int, "phases": {name: [ns, …]}, "counts": {name: int}}; older runs and other programs count
# nothing
Iteration = Mapping[str, Any]

PHASES = ("features", "encode", "prefill", "decode")  # what an iteration consists of, in order


def phase_ns(iteration: Iteration, name: str) -> int:
    """Total time of a phase in one iteration, ns; 0 if it has none. `decode` falls back on its steps."""
    phases = iteration["phases"]
    durations = phases.get(name) or (phases.get(DECODE_STEP) if name == "decode" else None) or []
    return int(sum(durations))


def steps_ms(iterations: Sequence[Iteration]) -> np.ndarray:
    """Decode steps, ms: shape [iterations, positions], NaN where an iteration decoded fewer."""
    steps = [iteration["phases"].get(DECODE_STEP, []) for iteration in iterations]
    table = np.full((len(steps), max((len(one) for one in steps), default=0)), np.nan)
    for row, one in zip(table, steps, strict=True):
        row[: len(one)] = np.asarray(one, dtype=float) / 1e6
    return table


def latency_samples(iterations: Sequence[Iteration], audio_s: float = 0.0) -> dict[str, list[float]]:
    """One value per iteration: total_ms, features_ms, encode_ms, prefill_ms, decode_ms (those that were
    timed), ms_per_token (decode / tokens that it gave, where every iteration has some) and
    real_time_factor (total / `audio_s`, if given)."""
    if not iterations:
        return {}
    samples = {"total_ms": [iteration["iter_ns"] / 1e6 for iteration in iterations]}
    for name in PHASES:
        values = [phase_ns(iteration, name) / 1e6 for iteration in iterations]
        if any(values):
            samples[f"{name}_ms"] = values
    tokens = _tokens(iterations)
    if all(tokens):
        decode = [phase_ns(iteration, "decode") / 1e6 for iteration in iterations]
        samples["ms_per_token"] = [ms / count for ms, count in zip(decode, tokens, strict=True)]
    if audio_s > 0:
        samples["real_time_factor"] = [ms / 1e3 / audio_s for ms in samples["total_ms"]]
    return samples


def latency_metrics(iterations: Sequence[Iteration], audio_s: float = 0.0) -> dict[str, float]:
    """Medians of `latency_samples` with quartiles `.p25` and `.p75` and, from six iterations on, the 95%
    interval of the median, `.low` and `.high` (see `analysis.statistics`); and tokens (that the decode phase
    of an iteration gave, median). Over all iterations: tokens_per_round, and of a draft acceptance, the
    share of its tokens that the model confirmed.

    ms_per_token.p90 and .p99 are over the single decode steps of all iterations that give one token each: the
    mean of an iteration hides its slow steps.
    """
    if not iterations:
        return {}
    tokens = _tokens(iterations)
    metrics = {"tokens": float(np.median(tokens))} | _ratios(iterations)
    steps = steps_ms(iterations)
    if all(tokens) and sum(tokens) <= np.isfinite(steps).sum():
        p90, p99 = np.nanpercentile(steps, [90, 99]).tolist()
        metrics |= {"ms_per_token.p90": p90, "ms_per_token.p99": p99}
    for name, values in latency_samples(iterations, audio_s).items():
        p25, p75 = np.percentile(values, [25, 75]).tolist()
        metrics |= flat(name, estimate(median_of(values))) | {f"{name}.p25": p25, f"{name}.p75": p75}
    return metrics


def _tokens(iterations: Sequence[Iteration]) -> list[int]:
    """Tokens that the decode phase of each iteration gave: one a step, where they were not counted."""
    steps = [len(iteration["phases"].get(DECODE_STEP, [])) for iteration in iterations]
    return [
        iteration.get("counts", {}).get("tokens", count)
        for iteration, count in zip(iterations, steps, strict=True)
    ]


def _ratios(iterations: Sequence[Iteration]) -> dict[str, float]:
    counts = [iteration.get("counts", {}) for iteration in iterations]
    found = {}
    for name, over, under in (
        ("tokens_per_round", "tokens", "rounds"),
        ("acceptance", "accepted", "drafted"),
    ):
        total = sum(one.get(under, 0) for one in counts)
        if total:
            found[name] = sum(one.get(over, 0) for one in counts) / total
    return found
