"""Run folders with iterations, and traces of decode steps, that a test chooses."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from synthetic_export import Export

CALL_NS, START_NS = 2_000, 3_000  # a launch call, and from its return to the start of the kernel


def write_run(
    folder: Path,
    ms_per_token: Sequence[float],
    *,
    metrics: Mapping[str, float] | None = None,
    tokens: int = 4,
    encode_ms: float = 2.0,
    **changes: Any,
) -> Path:
    """A finished run whose iterations take `ms_per_token`; `changes` replace entries of its run.json, or
    `audio` the name of its sound file."""
    folder.mkdir(parents=True)
    audio = changes.pop("audio", "harbour.flac")
    record = {
        "id": f"{folder.parent.name}/{folder.name}",
        "scope": folder.parent.name,
        "status": "finished",
        "started_utc": folder.name,
        "model": "tiny",
        "device": "cuda",
        "inputs": "same",
        "environment": {"machine": "NVIDIA H200", "python": "3.12", "packages": {"torch": "2.11.0"}},
        "metrics": dict(metrics or {}),
    }
    (folder / "run.json").write_text(json.dumps(record | changes))
    measured = {
        "iterations": [_iteration(ms, tokens, encode_ms) for ms in ms_per_token],
        "workload": {"audio_s": 6.8},
        "transcripts": [{"source": f"clips/{audio}", "window": 0}],
    }
    (folder / "measure.json").write_text(json.dumps(measured))
    return folder


def _iteration(ms: float, tokens: int, encode_ms: float) -> dict[str, Any]:
    step, encode = round(ms * 1e6), round(encode_ms * 1e6)
    phases = {"encode": [encode], "decode": [step * tokens], "decode.step": [step] * tokens}
    return {"iter_ns": step * tokens + encode + 500_000, "phases": phases}


def write_trace(
    path: Path, steps: int, host_ns: int, kernels: Mapping[str, int], *, harness: bool = True, gpus: int = 1
) -> Path:
    """Decode steps whose every kernel (name: ns) follows `host_ns` of host code, a launch call and its start;
    one after the other, on each of so many `gpus` in turn.

    Without `harness` the steps have no ranges of the harness around and above them.
    """
    export, now, correlation = Export(), 0, 0
    export.domain("harness", 1)
    for _ in range(steps):
        begin = now
        for name, busy_ns in kernels.items():
            correlation += 1
            called = now + host_ns
            began = called + CALL_NS + START_NS
            export.call(called, called + CALL_NS, correlation)
            export.kernel(began, began + busy_ns, correlation, name=name, device=correlation % gpus)
            now = began + busy_ns
        if harness:
            export.range("decode.step", begin, now)
    if harness:
        export.range("iter", 0, now)
        export.range("decode", 0, now)
    return export.write(path)
