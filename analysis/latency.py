"""Latency from the timed iterations of a run without a profiler (measure.json)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

Iteration = Mapping[str, Any]  # {"iter_ns": int, "phases": {name: [ns, …]}}

STEP = "decode.step"
PHASES = ("features", "encode", "prefill", "decode")  # what an iteration consists of, in order


def summary(values: Iterable[float]) -> dict[str, float]:
    """count, median, p25, p75, p90, p99, iqr, min and max of some values (any unit); empty without values."""
    data = np.asarray(list(values), dtype=float)
    if data.size == 0:
        return {}
    p25, median, p75, p90, p99 = np.percentile(data, [25, 50, 75, 90, 99])
    return {
        "count": float(data.size),
        "median": float(median),
        "p25": float(p25),
        "p75": float(p75),
        "p90": float(p90),
        "p99": float(p99),
        "iqr": float(p75 - p25),
        "min": float(data.min()),
        "max": float(data.max()),
    }


def phase_ns(iteration: Iteration, name: str) -> int:
    """Total time of a phase in one iteration, ns; 0 if it has none. `decode` falls back on its steps."""
    phases = iteration["phases"]
    durations = phases.get(name) or (phases.get(STEP) if name == "decode" else None) or []
    return int(sum(durations))


def steps_ms(iterations: Sequence[Iteration]) -> np.ndarray:
    """Decode steps, ms: shape [iterations, positions], NaN where an iteration decoded fewer."""
    steps = [iteration["phases"].get(STEP, []) for iteration in iterations]
    table = np.full((len(steps), max((len(one) for one in steps), default=0)), np.nan)
    for row, one in zip(table, steps, strict=True):
        row[: len(one)] = np.asarray(one, dtype=float) / 1e6
    return table


def latency_metrics(iterations: Sequence[Iteration], audio_s: float = 0.0) -> dict[str, float]:
    """Medians over iterations with `.p25` and `.p75`: total_ms, features_ms, encode_ms, prefill_ms,
    decode_ms, ms_per_token (decode / number of decode steps); and tokens (decode steps of an iteration,
    median) and real_time_factor (total / `audio_s`, if given)."""
    samples = {"total_ms": [iteration["iter_ns"] / 1e6 for iteration in iterations]}
    for name in PHASES:
        values = [phase_ns(iteration, name) / 1e6 for iteration in iterations]
        if any(values):
            samples[f"{name}_ms"] = values
    tokens = [len(iteration["phases"].get(STEP, [])) for iteration in iterations]
    if tokens and all(tokens):
        decode = [phase_ns(iteration, "decode") / 1e6 for iteration in iterations]
        samples["ms_per_token"] = [ms / count for ms, count in zip(decode, tokens, strict=True)]
    if audio_s > 0:
        samples["real_time_factor"] = [ms / 1e3 / audio_s for ms in samples["total_ms"]]
    metrics = {"tokens": float(np.median(tokens))} if tokens else {}
    for name, values in samples.items():
        if found := summary(values):
            metrics |= {name: found["median"], f"{name}.p25": found["p25"], f"{name}.p75": found["p75"]}
    return metrics
